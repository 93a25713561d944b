from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker import http
from providers import tokens
from providers.base import ProviderError, Secret
from providers.tokens import Answer, Endpoints, assertion, read_token, refused
from tests.components.process import free_port
from tests.fakes.endpoint import token
from tests.fakes.keys import strangers_key

if TYPE_CHECKING:
    from tests.fakes.endpoint import Endpoint

URL = "https://login.example.com/token"


def endpoints(endpoint: Endpoint, **options: Any) -> Endpoints:
    fields = {"private": True, "insecure": False, **options}
    return Endpoints(http.client, ca_file=str(endpoint.ca_file), **fields)


class TestReadToken:
    def test_what_an_endpoint_gives(self) -> None:
        found = read_token(URL, Answer(200, token("abc", scope="read write", refresh_token="next")))
        assert found.access_token == Secret(b"abc")
        assert (found.expires_in, found.scope) == (600, ("read", "write"))
        assert found.refresh_token == Secret(b"next")

    def test_what_it_need_not_say(self) -> None:
        found = read_token(URL, Answer(200, token(token_type="bearer", expires_in="600")))
        assert (found.expires_in, found.scope, found.refresh_token) == (600, None, None)

    @pytest.mark.parametrize(
        "changes",
        [
            {"access_token": None},
            {"access_token": ""},
            {"access_token": "two words"},
            {"access_token": "a\r\nX-Evil: 1"},
            {"access_token": "a" * 70_000},
            {"access_token": ["abc"]},
            {"token_type": "mac"},
            {"token_type": "DPoP"},
            {"token_type": None},
            {"expires_in": None},
            {"expires_in": 0},
            {"expires_in": -1},
            {"expires_in": True},
            {"expires_in": 86_401},
            {"expires_in": float("inf")},
            {"expires_in": float("nan")},
            {"expires_in": "9" * 5_000},
            {"expires_in": "soon"},
        ],
        ids=lambda changes: repr(changes)[:40],
    )
    def test_what_is_no_token_may_still_have_made_one(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ProviderError) as caught:
            read_token(URL, Answer(200, token("canary") | changes))
        assert not caught.value.untouched
        assert "canary" not in str(caught.value)


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "body", "retryable", "untouched", "told"),
        [
            (400, {"error": "invalid_grant"}, False, True, "400 invalid_grant"),
            (401, {"error": "invalid_client"}, False, True, "401 invalid_client"),
            (400, {"error": "SECRET"}, False, True, r"\(400\)"),
            (400, {"error": ["SECRET"]}, False, True, r"\(400\)"),
            (400, {}, False, True, r"\(400\)"),
            (429, {}, True, True, r"\(429\)"),
            (400, {"error": "temporarily_unavailable"}, True, True, "try again later"),
            (500, {}, True, False, r"\(500\)"),
            (503, {"error": "server_error"}, True, False, "503 server_error"),
            (302, {}, False, True, r"\(302\)"),
        ],
        ids=repr,
    )
    def test_what_a_refusal_means(
        self, status: int, body: dict[str, Any], *, retryable: bool, untouched: bool, told: str
    ) -> None:
        body = body | {"error_description": "SECRET", "error_uri": "https://SECRET"}
        error = refused(URL, Answer(status, body))
        assert (error.retryable, error.untouched) == (retryable, untouched)
        assert "SECRET" not in str(error)
        with pytest.raises(ProviderError, match=told):
            read_token(URL, Answer(status, body))


class TestCalls:
    async def test_a_form_and_basic_authentication_are_encoded(self, endpoint: Endpoint) -> None:
        endpoint.say(200, {"a": 1})
        fields: Any = {"scope": "a b", "secret": Secret(b"x&y="), "resource": ("https://a",)}
        answer = await endpoints(endpoint).form(endpoint.url, fields, ("me", Secret(b"p:+%")))
        assert answer == Answer(200, {"a": 1})
        sent = endpoint.sent[0]
        assert sent.form == {"scope": "a b", "secret": "x&y=", "resource": "https://a"}
        # base64 of "me:p%3A%2B%25" (RFC 6749, 2.3.1)
        assert sent.headers["authorization"] == "Basic bWU6cCUzQSUyQiUyNQ=="
        assert sent.headers["accept-encoding"] == "identity"

    async def test_json_goes_with_a_token(self, endpoint: Endpoint) -> None:
        endpoint.say(200, {})
        await endpoints(endpoint).json(f"{endpoint.url}/x", {"a": [1]}, Secret(b"tok"))
        sent = endpoint.sent[0]
        assert (sent.path, sent.document) == ("/x", {"a": [1]})
        assert sent.headers["authorization"] == "Bearer tok"

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"[1]", b"\xff"], ids=repr)
    async def test_what_is_no_document_says_nothing(self, endpoint: Endpoint, body: bytes) -> None:
        endpoint.say(200, body)
        assert await endpoints(endpoint).form(endpoint.url, {}) == Answer(200, {})

    async def test_an_answer_without_measure_is_cut_short(self, endpoint: Endpoint) -> None:
        endpoint.say(200, b" " * (2 << 20))
        with pytest.raises(ProviderError, match="sent more than") as caught:
            await endpoints(endpoint).form(endpoint.url, {})
        assert not caught.value.untouched

    async def test_who_never_answers_is_given_up(
        self, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tokens, "_PATIENCE", 0.1)
        endpoint.delay = 0.5
        endpoint.say(200, {})
        with pytest.raises(ProviderError, match="did not answer") as caught:
            await endpoints(endpoint).form(endpoint.url, {})
        assert caught.value.retryable
        assert not caught.value.untouched

    async def test_who_cannot_be_reached_was_asked_nothing(self, endpoint: Endpoint) -> None:
        url = f"https://127.0.0.1:{free_port()}/token"
        with pytest.raises(ProviderError, match="ConnectError") as caught:
            await endpoints(endpoint).form(url, {"secret": Secret(b"canary")})
        assert caught.value.retryable
        assert caught.value.untouched
        assert "canary" not in str(caught.value)

    async def test_a_private_address_takes_leave(self, endpoint: Endpoint) -> None:
        endpoint.say(200, {})
        with pytest.raises(ProviderError):
            await endpoints(endpoint, private=False).form(endpoint.url, {})
        assert endpoint.sent == []


class TestAssertion:
    async def test_each_has_an_id_of_its_own(self) -> None:
        key = Secret(strangers_key("ES256").private_pem())
        made = {
            (await assertion(key, {"iss": "me"}, algorithm="ES256", reference="env:K")).reveal()
            for _ in range(3)
        }
        assert len(made) == 3

    @pytest.mark.parametrize(
        ("pem", "algorithm"),
        [
            (b"hunter2", "RS256"),
            (b"", "ES256"),
            (b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", "RS256"),
            (strangers_key("ES256").private_pem(), "RS256"),
            (strangers_key("RS256").private_pem(), "ES256"),
        ],
        ids=["text", "nothing", "broken", "another kind", "the other kind"],
    )
    async def test_a_key_that_is_none_is_not_repeated(self, pem: bytes, algorithm: Any) -> None:
        with pytest.raises(ProviderError, match="env:K is no private key") as caught:
            await assertion(Secret(pem), {}, algorithm=algorithm, reference="env:K")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
