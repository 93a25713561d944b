"""Standards 19 and 20 over HTTP: RFC 7662's and RFC 7009's endpoints."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from broker.api.parameters import FORM, JSON
from tests.fakes.issuer import BROKER
from tests.fakes.token_bench import BY_JWT, client, narrowed, over

if TYPE_CHECKING:
    import httpx

    from tests.fakes.token_bench import TokenBench


async def _token(bench: TokenBench, agent: str = "helper") -> str:
    scope = "api.admin" if agent == "other" else "api.read"
    issued = await bench.exchange.token(client(bench.assertion(agent), scope=scope))
    return issued.access_token


def _asking(bench: TokenBench, token: str, agent: str = "helper") -> dict[str, str]:
    return {
        "token": token,
        "client_assertion": bench.assertion(agent),
        "client_assertion_type": BY_JWT,
    }


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _is_private(response: httpx.Response) -> None:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"


def _is_refusal(response: httpx.Response, status: int, error: str) -> None:
    _is_private(response)
    document = response.json()
    assert (response.status_code, document["error"]) == (status, error)
    assert document.keys() == {"error", "error_description"}
    assert response.headers["broker-error"] == error


async def test_standard_19_active(token_bench: TokenBench, token_client: httpx.AsyncClient) -> None:
    token = await _token(token_bench)
    for answer in (
        await token_client.post("/introspect", data=_asking(token_bench, token)),
        await token_client.post("/introspect", json=_asking(token_bench, token)),
        await token_client.post("/introspect", data={"token": token}, headers=_bearer(token)),
    ):
        assert answer.status_code == 200
        _is_private(answer)
        document = answer.json()
        assert (document["active"], document["scope"], document["iss"]) == (
            True,
            "api.read",
            BROKER,
        )
        assert "broker-error" not in answer.headers


@pytest.mark.parametrize("why", ["unknown", "expired", "revoked", "foreign"])
async def test_standard_19_everything_else_is_answered_byte_for_byte_alike(
    token_bench: TokenBench, token_client: httpx.AsyncClient, why: str
) -> None:
    token = await _token(token_bench, "other" if why == "foreign" else "helper")
    if why == "unknown":
        token = token[:-8] + "AAAAAAAA"
    elif why == "expired":
        token_bench.wait(901)
    elif why == "revoked":
        await token_client.post("/revoke", data={"token": token}, headers=_bearer(token))
    answer = await token_client.post("/introspect", data=_asking(token_bench, token))
    assert (answer.status_code, answer.content) == (200, b'{"active":false}')
    _is_private(answer)
    assert {name for name in answer.headers if name.startswith("broker-")} == set()


async def test_standard_20_revoked(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    token = await _token(token_bench)
    for _ in range(2):
        answer = await token_client.post("/revoke", data=_asking(token_bench, token))
        assert (answer.status_code, answer.content) == (200, b"{}")
        _is_private(answer)
    refused = await token_client.post("/token", data=_narrowing(token))
    assert refused.json()["error"] == "invalid_request"


def _narrowing(token: str) -> dict[str, str]:
    return {name: values[0] for name, values in narrowed(token, "api.read").items()}


async def test_standard_20_unknown_and_foreign(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    unknown = await token_client.post("/revoke", data=_asking(token_bench, "nonsense"))
    assert (unknown.status_code, unknown.content) == (200, b"{}")
    other = await _token(token_bench, "other")
    foreign = await token_client.post("/revoke", data=_asking(token_bench, other))
    _is_refusal(foreign, 400, "invalid_grant")
    assert (
        token_bench.records("token.revoke")[-1]["operation"] == foreign.headers["broker-operation"]
    )
    still = await token_client.post("/introspect", data={"token": other}, headers=_bearer(other))
    assert still.json()["active"] is True


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
class TestRefusals:
    async def test_a_caller_that_is_not_accepted_gets_401_and_a_challenge(
        self, token_bench: TokenBench, token_client: httpx.AsyncClient, path: str
    ) -> None:
        token = await _token(token_bench)
        nobody = await token_client.post(path, data={"token": token})
        _is_refusal(nobody, 401, "invalid_client")
        assert nobody.headers["www-authenticate"] == 'Bearer realm="broker"'
        wrong = _asking(token_bench, token) | {"client_assertion": "a.b.c"}
        _is_refusal(await token_client.post(path, data=wrong), 401, "invalid_client")
        bad = await token_client.post(path, data={"token": token}, headers=_bearer("a.b.c"))
        _is_refusal(bad, 401, "invalid_token")
        assert 'error="invalid_token"' in bad.headers["www-authenticate"]

    @pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer a b", "Bearer é", "x"])
    async def test_other_ways_to_authenticate(
        self, token_client: httpx.AsyncClient, path: str, header: str
    ) -> None:
        headers = [(b"Authorization", header.encode())]
        answer = await token_client.post(path, data={"token": "t"}, headers=headers)
        _is_refusal(answer, 401, "invalid_client")
        assert answer.headers["www-authenticate"] == 'Bearer realm="broker"'

    async def test_get_is_refused(self, token_client: httpx.AsyncClient, path: str) -> None:
        answer = await token_client.get(path)
        _is_refusal(answer, 405, "invalid_request")
        assert answer.headers["allow"] == "POST"

    @pytest.mark.parametrize(
        "body",
        [
            (b"token=a&token=b", FORM, 400),
            (b"", FORM, 400),
            (b"token=%zz", FORM, 400),
            (b"token=" + b"a" * 70_000, FORM, 413),
            (b"token=a", "text/plain", 415),
            (b'{"token": "a", "token": "b"}', JSON, 400),
            (b'{"token": 7.5}', JSON, 400),
        ],
    )
    async def test_t2_and_t6_bodies(
        self,
        token_bench: TokenBench,
        token_client: httpx.AsyncClient,
        path: str,
        body: tuple[bytes, str, int],
    ) -> None:
        content, media, status = body
        answer = await token_client.post(path, content=content, headers={"Content-Type": media})
        _is_refusal(answer, status, "invalid_request")
        record = token_bench.records("token." + path[1:])[-1]
        assert record["decision"] == "deny"

    async def test_a_token_in_the_url_is_refused(
        self, token_bench: TokenBench, token_client: httpx.AsyncClient, path: str
    ) -> None:
        token = await _token(token_bench)
        answer = await token_client.post(f"{path}?token={token}", headers=_bearer(token))
        _is_refusal(answer, 400, "invalid_request")

    async def test_a2_without_a_trail_nothing_is_done(
        self, token_bench: TokenBench, token_client: httpx.AsyncClient, path: str
    ) -> None:
        token = await _token(token_bench)
        await token_bench.trail.close()
        answer = await token_client.post(path, data={"token": token}, headers=_bearer(token))
        _is_refusal(answer, 503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "5"

    async def test_a_defect_says_nothing(
        self,
        token_bench: TokenBench,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        path: str,
    ) -> None:
        token = await _token(token_bench)

        async def broken(*_: Any) -> Any:
            raise RuntimeError(f"{token} at 10.0.0.1")

        monkeypatch.setattr(type(token_bench.status), path[1:], broken)
        caplog.set_level(logging.DEBUG)
        async with over(token_bench.app()) as http:
            answer = await http.post(path, data={"token": token}, headers=_bearer(token))
        _is_refusal(answer, 500, "server_error")
        assert token not in answer.text + caplog.text

    async def test_without_it_there_is_no_such_page(
        self, token_bench: TokenBench, path: str
    ) -> None:
        async with over(token_bench.app(status=None)) as http:
            assert (await http.post(path, data={"token": "x"})).status_code == 404

    async def test_under_the_issuers_path(self, token_bench: TokenBench, path: str) -> None:
        token = await _token(token_bench)
        app = token_bench.app(issuer="https://broker.test/tenant")
        async with over(app) as http:
            answer = await http.post(
                f"/tenant{path}", data={"token": token}, headers=_bearer(token)
            )
            assert answer.status_code == 200
