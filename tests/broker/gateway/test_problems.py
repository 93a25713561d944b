from __future__ import annotations

import json
import logging

import pytest

from broker.gateway.base import Resource
from broker.gateway.problems import (
    KINDS,
    Refusal,
    head_too_large,
    malformed,
    no_credential,
    render,
    report,
    too_large,
    unsignable,
)
from providers.base import ProviderError
from providers.signing import Unsignable

RESOURCE = Resource("https://gateway.test", "https://broker.test")
DENIED = Refusal(
    "policy_denied",
    "no rule allows it",
    None,
    ("GET /v1/**",),
    ("api.all", "api.more"),
    "ask for it",
)


def parts(refusal: Refusal, *, body: bool = True, close: bool = False) -> tuple[str, bytes]:
    head, _, content = render(refusal, RESOURCE, body=body, close=close).partition(b"\r\n\r\n")
    return head.decode("ascii"), content


@pytest.mark.parametrize("code", KINDS)
def test_every_refusal_is_a_problem_of_our_own(code: str) -> None:
    head, content = parts(Refusal(code, "why"))
    assert f"\r\nBroker-Error: {code}\r\n" in head + "\r\n"
    assert "\r\nContent-Type: application/problem+json\r\n" in head
    assert "\r\nCache-Control: no-store\r\n" in head
    assert f"\r\nContent-Length: {len(content)}\r\n" in head
    document = json.loads(content)
    assert document["status"] == int(head.split(" ")[1]) == KINDS[code].status
    assert document["type"] == f"urn:agent-token-broker:{code}"
    assert document["title"] == KINDS[code].title
    assert document["detail"] == "why"
    assert document["error"]["message"]


def test_a_denial_names_rule_allowed_and_scopes() -> None:
    head, content = parts(DENIED)
    document = json.loads(content)
    assert document["rule"] is None
    assert document["allowed"] == ["GET /v1/**"]
    assert document["scopes"] == ["api.all", "api.more"]
    assert document["remedy"] == "ask for it"
    assert (
        'WWW-Authenticate: Bearer error="insufficient_scope", scope="api.all api.more", '
        'resource_metadata="https://gateway.test/.well-known/oauth-protected-resource"' in head
    )


@pytest.mark.parametrize(
    ("code", "start"),
    [
        ("token_missing", "Bearer resource_metadata="),
        ("token_invalid", 'Bearer error="invalid_token", resource_metadata='),
    ],
)
def test_challenges(code: str, start: str) -> None:
    assert f"\r\nWWW-Authenticate: {start}" in parts(Refusal(code, "why"))[0]


def test_a_body_can_be_left_out_and_the_connection_closed() -> None:
    head, content = parts(DENIED, body=False, close=True)
    assert content == b""
    assert head.endswith("\r\nConnection: close")


def test_what_may_pass_says_when_to_try_again() -> None:
    assert "\r\nRetry-After: 1" in parts(Refusal("overloaded", "why"))[0]


def test_a_note_is_for_the_trail_alone() -> None:
    assert b"10.0.0.1" not in parts(Refusal("upstream_forbidden", "why", note="10.0.0.1"))[1]


def test_metadata_of_a_gateway_with_a_path() -> None:
    resource = Resource("https://example.test/gateway/", "https://broker.test")
    assert (
        resource.metadata_url == "https://example.test/.well-known/oauth-protected-resource/gateway"
    )
    document = json.loads(resource.document())
    assert document["resource"] == "https://example.test/gateway/"
    assert document["authorization_servers"] == ["https://broker.test"]


def test_what_cannot_be_trusted_to_go_on_is_final() -> None:
    assert malformed("x").final
    assert too_large(1).final
    assert head_too_large(1).final
    assert not DENIED.final


def test_a_report_names_the_place_and_not_the_text(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("sk_live_secret")

    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="sk_live") as caught:
        fail()
    report(caught.value, "trying")
    assert "ValueError" in caplog.text
    assert "test_problems.py" in caplog.text
    assert "sk_live" not in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProviderError("down", retryable=True), "credential_unavailable"),
        (ProviderError("wrong"), "credential_refused"),
        (KeyError("sk-live"), "internal_error"),
    ],
)
def test_an_agent_is_not_told_why_a_provider_failed(
    error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = no_credential(error)
    assert refusal.code == code
    assert refusal.note == (str(error) if isinstance(error, ProviderError) else None)
    assert str(error) not in refusal.detail
    assert "sk-live" not in caplog.text


def test_what_cannot_be_signed_says_why() -> None:
    refusal = unsignable(Unsignable("in two ways"))
    assert (refusal.status, refusal.detail, refusal.final) == (400, "in two ways", True)
