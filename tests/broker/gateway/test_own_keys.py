"""Which names hold a credential. What becomes of them is in tests/attacks/test_u.py."""

from __future__ import annotations

import pytest

from broker.gateway.own_keys import is_key, key_parameters
from broker.twins import twin

# fmt: off
KEYS = [
    "X-Api-Key", "Api-Key", "apikey", "xi-api-key", "X-Goog-Api-Key", "DD-API-KEY",
    "DD-APPLICATION-KEY", "PRIVATE-TOKEN", "JOB-TOKEN", "Deploy-Token", "X-Auth-Token",
    "X-Access-Token", "X-Shopify-Access-Token", "X-Vault-Token", "X-Consul-Token", "X-Nomad-Token",
    "X-Figma-Token", "Circle-Token", "X-Subscription-Token", "X-Amz-Security-Token",
    "X-Postmark-Server-Token", "X-Auth-Key", "X-Auth-Email", "Ocp-Apim-Subscription-Key",
    "X-Functions-Key", "X-RapidAPI-Key", "X-Authorization", "X-Auth", "X-Token", "Token", "Auth",
    "X-Parse-Session-Token", "X_API_KEY", "x.api.key",
]
OTHERS = [
    "Idempotency-Key", "X-CSRF-Token", "X-XSRF-TOKEN", "CSRF-Token", "Sec-WebSocket-Key",
    "Anthropic-Version", "OpenAI-Organization", "X-Algolia-Application-Id", "X-Page-Token",
    "x-ms-continuationtoken", "Surrogate-Key", "X-Api-Version", "Authority", "X-Author", "Tokens",
    "X-Idempotent-Api-Keys-Of", "User-Agent", "X-Goog-Request-Params", "Traceparent",
]
# fmt: on


@pytest.mark.parametrize("name", KEYS)
def test_a_credential_is_told_by_its_name(name: str) -> None:
    assert is_key(twin(name.lower().encode()))


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_else_requests_need_is_none(name: str) -> None:
    assert not is_key(twin(name.lower().encode()))


def test_some_names_hold_a_key_in_some_places_alone() -> None:
    common = key_parameters("api.test")
    assert {b"access_token", b"api_key", b"private_token"} <= common
    assert not common & {b"key", b"token", b"page_token", b"q"}
    for host in ("googleapis.com", "generativelanguage.googleapis.com"):
        assert key_parameters(host) - common == {b"key"}
    assert key_parameters("slack.com") - common == {b"token"}
    for other in ("evilgoogleapis.com", "googleapis.com.evil.test"):
        assert key_parameters(other) == common
