from __future__ import annotations

import pytest
from pydantic import ValidationError

from providers.base import Minted, Secret, upstream_of
from providers.bearer import SLOTS, BearerService, PresentsBearer, token_slots
from tests.fakes.provider_bench import request


def test_a_base_url_says_where_requests_go() -> None:
    config = BearerService(base_url="https://api.example.com:8443/v2/", ca_file="/ca.pem")
    place = upstream_of(config)
    assert (place.scheme, place.host, place.port, place.base_path) == (
        "https",
        "api.example.com",
        8443,
        b"/v2",
    )
    assert (place.allow_private, place.insecure_http, place.scrub) == (False, False, True)
    assert place.ca_file == "/ca.pem"
    assert not upstream_of(BearerService(base_url="https://a.example.com", scrub=False)).scrub


def test_plain_http_takes_leave() -> None:
    with pytest.raises(ValidationError, match="base_url is plain http"):
        BearerService(base_url="http://api.example.com")
    leave = BearerService(base_url="http://a.example.com", insecure_http=True)
    assert upstream_of(leave).scheme == "http"


def test_a_token_is_written_as_rfc_6750_says() -> None:
    minted = Minted({"access_token": Secret(b"tok")}, 0)
    injection = PresentsBearer().present(minted, request(None))
    assert injection.headers == ((b"Authorization", Secret(b"Bearer tok")),)
    assert injection.secrets == (Secret(b"tok"),)
    assert injection.query == injection.cookies == ()


def test_it_is_looked_for_where_it_would_be_written() -> None:
    assert token_slots(None) == SLOTS
    assert [(slot.kind, slot.name) for slot in SLOTS] == [("bearer", b"authorization")]
