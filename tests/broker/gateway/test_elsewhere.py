"""Which fields name a second place, and which places. The rest is in tests/attacks/test_p.py."""

from __future__ import annotations

import pytest

from broker.gateway.elsewhere import named_elsewhere, why_not_elsewhere
from broker.gateway.grammar import Field
from broker.gateway.route import Route
from providers.base import Upstream
from tests.fakes.gateway import policy, policy_text

POLICY = policy(policy_text(), 8080)


def field(name: bytes, value: bytes) -> Field:
    return Field(name.lower(), name, value)


def refused(
    name: bytes,
    value: bytes,
    method: bytes = b"PUT",
    base: bytes = b"",
    host: str = "store.test",
) -> str | None:
    upstream = Upstream("https", host, 443, base_path=base)
    route = Route(POLICY, POLICY.services["api"], upstream)
    named = named_elsewhere([field(b"Host", b"a"), field(name, value), field(b"X", b"admin/x")])
    assert len(named) == 1
    refusal = why_not_elsewhere(named, route, ("api.all",), method)
    return None if refusal is None else refusal.detail


def test_a_request_names_one_place_as_a_rule() -> None:
    assert named_elsewhere([field(b"Host", b"a"), field(b"X-Copy", b"/admin/x")]) == ()


ODD = [b"", b"*", b"/", b"a", b"//a", b"http://store.test/a", b"https://store.testa/a"]
ODD += [b"https://store.test", b"https://store.test@evil/a", b"https://evil/a"]


@pytest.mark.parametrize("name", [b"Destination", b"x-ms-copy-source", b"X_MS_File-Rename.Source"])
def test_what_is_named_by_url_is_judged(name: bytes) -> None:
    for place in (b"https://store.test/a", b"HTTPS://Store.test:443/a", b"https://store.test/a?b"):
        assert refused(name, place, b"MOVE") is None
    for path in (b"/admin/a", b"//admin/a", b"/a/../admin/a", b"/a#/b", b"/a?#", b"/a b"):
        assert refused(name, b"https://store.test" + path, b"MOVE") is not None
    for place in ODD:
        assert refused(name, place, b"MOVE") is not None


def test_what_is_named_by_path_is_judged() -> None:
    assert refused(b"x-ms-rename-source", b"/a") is None
    for place in (b"/admin/a", b"a", b"//a", b"https://store.test/a", b""):
        assert refused(b"x-ms-rename-source", place) is not None


def test_what_is_named_by_bucket_is_judged_where_buckets_stand_in_paths() -> None:
    google = "storage.googleapis.com"
    for place in (b"bucket/a", b"/bucket/a"):
        assert refused(b"x-goog-copy-source", place, host=google) is None
        assert refused(b"x-goog-copy-source", place, host="bucket." + google) is not None
    assert refused(b"x-goog-copy-source", b"admin/a", host=google) is not None


def test_what_starts_from_a_place_that_is_not_known_is_refused() -> None:
    for place in (b"/container/a", b"container/a", b"https://store.test/a"):
        assert refused(b"X-Copy-From", place) is not None


def test_a_destination_says_nothing_but_where_something_goes_to() -> None:
    assert refused(b"Destination", b"anywhere", b"PUT") is None


def test_what_must_be_allowed_there_is_said() -> None:
    where = b"https://store.test/admin/a"
    assert (refused(b"Destination", where, b"COPY") or "").endswith("allows COPY")
    assert (refused(b"x-ms-copy-source", where) or "").endswith("allows GET")
    assert (refused(b"x-ms-rename-source", b"/admin/a") or "").endswith("allows GET and DELETE")


def test_a_place_is_below_the_services_own() -> None:
    for path, fine in (
        (b"/v2/a", True),
        (b"/v2x/a", False),
        (b"/v2/admin/a", False),
        (b"/v2", False),
    ):
        found = refused(b"Destination", b"https://store.test" + path, b"COPY", b"/v2")
        assert (found is None) is fine
