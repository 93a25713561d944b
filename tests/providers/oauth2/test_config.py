from __future__ import annotations

import pytest
from pydantic import ValidationError

from providers.base import upstream_of
from providers.oauth2 import PLUGIN
from providers.oauth2.config import OAuth2Scope, OAuth2Service, secret_references

BASIC = {"type": "client_secret_basic", "id": "crm", "secret": "vault:kv/crm#secret"}
GOOD = {
    "base_url": "https://api.crm.example.com/v2",
    "token_url": "https://login.crm.example.com/token",
    "grant": {"type": "client_credentials"},
    "client": BASIC,
}
REFRESH = {"type": "refresh_token", "refresh_token": "vault:kv/crm#refresh"}
BEARER = {
    "type": "jwt_bearer",
    "issuer": "broker",
    "subject": "robot@crm",
    "private_key": "embedded:crm-key",
}


def service(**changes: object) -> OAuth2Service:
    fields = GOOD | changes
    return OAuth2Service.model_validate({k: v for k, v in fields.items() if v is not None})


def test_a_service_says_where_its_api_is() -> None:
    place = upstream_of(service())
    assert (place.scheme, place.host, place.port) == ("https", "api.crm.example.com", 443)
    assert place.base_path == b"/v2"
    assert place.scrub
    assert not upstream_of(service(scrub="off")).scrub


@pytest.mark.parametrize(
    ("changes", "references"),
    [
        ({}, ("vault:kv/crm#secret",)),
        ({"grant": REFRESH}, ("vault:kv/crm#refresh", "vault:kv/crm#secret")),
        ({"grant": BEARER, "client": None}, ("embedded:crm-key",)),
        ({"grant": REFRESH, "client": {"type": "none", "id": "x"}}, ("vault:kv/crm#refresh",)),
    ],
    ids=repr,
)
def test_every_secret_is_known(changes: dict[str, object], references: tuple[str, ...]) -> None:
    assert secret_references(service(**changes)) == references


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"token_url": "http://login.crm.example.com/token"}, "token_url is plain http"),
        ({"base_url": "http://api.crm.example.com"}, "base_url is plain http"),
        ({"revocation_url": "http://login.example.com"}, "revocation_url is plain http"),
        ({"token_url": "https://user@login.example.com/token"}, "without user"),
        ({"token_url": "https://login.example.com/token?x=1"}, "without user"),
        ({"token_url": None}, "Field required"),
        ({"client": None}, "client_credentials takes a client"),
        ({"client": {"type": "none", "id": "crm"}}, "client_credentials takes a client"),
        ({"grant": REFRESH, "client": None}, "belongs to a client"),
        ({"grant": REFRESH, "revocation_url": "https://x.example.com"}, "could end the refresh"),
        ({"grant": {"type": "password"}}, "does not match any of the expected tags"),
        ({"client": BASIC | {"secret": "hunter2"}}, "expected a secret reference"),
        ({"grant": REFRESH | {"refresh_token": "1//0g"}}, "expected a secret reference"),
        ({"grant": BEARER | {"algorithm": "HS256"}}, "Input should be"),
        ({"client": BASIC | {"id": "two words"}}, "should match pattern"),
        ({"scopes": ["read"]}, "Extra inputs"),
    ],
    ids=repr,
)
def test_what_cannot_work_or_is_unsafe_does_not_load(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        service(**changes)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "give oauth_scopes"),
        ({"oauth_scopes": []}, "at least 1 item"),
        ({"oauth_scopes": ["read"], "all_scopes": True}, "give oauth_scopes"),
        ({"all_scopes": False}, "Input should be True"),
        ({"oauth_scopes": ["read write"]}, "should match pattern"),
        ({"oauth_scopes": ['re"ad']}, "should match pattern"),
        ({"oauth_scopes": ["read", "read"]}, "twice"),
        ({"all_scopes": True, "resource": []}, "at least 1 item"),
        ({"all_scopes": True, "resource": ["not a url"]}, "expected https"),
        ({"all_scopes": True, "scope": "read"}, "Extra inputs"),
    ],
    ids=repr,
)
def test_a_scope_narrows_or_says_that_it_does_not(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        OAuth2Scope.model_validate(fields)


def test_the_plugin_offers_both_deliveries_and_takes_rules() -> None:
    assert PLUGIN.kind == "oauth2"
    assert PLUGIN.deliveries == {"proxy", "credential"}
    assert PLUGIN.http_rules
    assert [slot.kind for slot in PLUGIN.token_slots(service())] == ["bearer"]
