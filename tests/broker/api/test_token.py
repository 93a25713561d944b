"""Standards 1 to 3: what the token endpoint reads and how it answers."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import AuditUnavailable, LimitsUnavailable
from broker.token_request import ACCESS, EXCHANGE
from tests.fakes.issuer import BROKER, Answer
from tests.fakes.token_bench import POLICY, exchanged, over

if TYPE_CHECKING:
    import httpx

    from tests.fakes.token_bench import TokenBench

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, 5.2


def _fields(bench: TokenBench, **changes: str) -> dict[str, str]:
    return {name: values[0] for name, values in exchanged(bench.proof(), **changes).items()}


def _is_refusal(response: httpx.Response, status: int, error: str) -> None:
    document = response.json()
    assert (response.status_code, document["error"]) == (status, error)
    assert document.keys() == {"error", "error_description"}
    assert DESCRIPTION.fullmatch(document["error_description"])
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["broker-error"] == error


async def test_standard_2_success(token_bench: TokenBench, token_client: httpx.AsyncClient) -> None:
    response = await token_client.post("/token", data=_fields(token_bench))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["pragma"] == "no-cache"
    assert "broker-error" not in response.headers
    document = response.json()
    token = document.pop("access_token")
    assert document == {
        "token_type": "Bearer",
        "expires_in": 900,
        "scope": "api.read",
        "issued_token_type": ACCESS,
    }
    assert token_bench.grants.require(token.encode()).agent == "release-bot"
    assert token_bench.records()[0]["source_address"] == "192.0.2.1"


async def test_standard_1_json(token_bench: TokenBench, token_client: httpx.AsyncClient) -> None:
    response = await token_client.post("/token", json=_fields(token_bench) | {"ttl": 60})
    assert (response.status_code, response.json()["expires_in"]) == (200, 60)


async def test_the_path_that_anthropics_sdk_posts_to(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    body = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": token_bench.proof(),
        "federation_rule_id": "api.read",
        "organization_id": "00000000-0000-0000-0000-000000000000",
        "service_account_id": "release-bot",
    }
    response = await token_client.post("/v1/oauth/token", json=body)
    assert response.status_code == 200
    assert response.json()["token_type"] == "Bearer"
    assert isinstance(response.json()["expires_in"], int)


async def test_standard_1_a_repeated_parameter(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    body = f"grant_type={EXCHANGE}&scope=a&scope=a&subject_token={token_bench.proof()}"
    _is_refusal(
        await token_client.post("/token", content=body, headers=FORM), 400, "invalid_request"
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"subject_token": "nonsense"}, "invalid_request"),
        ({"scope": "api.admin"}, "invalid_scope"),
        ({"audience": "https://evil.example"}, "invalid_target"),
        ({"client_secret": "x"}, "invalid_client"),
        ({"reason": 'é"\\'}, "invalid_scope"),
    ],
)
async def test_standard_3_refusals(
    token_bench: TokenBench,
    token_client: httpx.AsyncClient,
    change: dict[str, str],
    error: str,
) -> None:
    fields = _fields(token_bench, **{"scope": "api.admin", **change})
    response = await token_client.post("/token", data=fields)
    _is_refusal(response, 400, error)
    (record,) = token_bench.records()
    assert response.headers["broker-operation"] == record["operation"]


@pytest.mark.parametrize(
    ("authorization", "scheme"),
    [("Basic YTpi", "Basic"), ("Bearer x", "Bearer"), ("", "Bearer"), ('"', "Bearer")],
)
async def test_standard_3_client_authentication_by_header(
    token_bench: TokenBench, token_client: httpx.AsyncClient, authorization: str, scheme: str
) -> None:
    response = await token_client.post(
        "/token", data=_fields(token_bench), headers={"Authorization": authorization}
    )
    _is_refusal(response, 401, "invalid_client")
    assert response.headers["www-authenticate"] == f'{scheme} realm="token"'


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods(token_client: httpx.AsyncClient, method: str) -> None:
    response = await token_client.request(method, "/token")
    _is_refusal(response, 405, "invalid_request")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {},
        FORM | {"Content-Encoding": "gzip"},
        FORM | {"Content-Encoding": "identity, gzip"},
    ],
)
async def test_other_content(token_client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    _is_refusal(
        await token_client.post("/token", content=b"a=b", headers=headers), 415, "invalid_request"
    )


async def test_a_header_given_twice(token_client: httpx.AsyncClient) -> None:
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ]
    response = await token_client.post("/token", content=b"{}", headers=headers)
    _is_refusal(response, 400, "invalid_request")


async def test_parameters_in_the_url(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    fields = _fields(token_bench)
    response = await token_client.post("/token", params={"scope": "api.read"}, data=fields)
    _is_refusal(response, 400, "invalid_request")


async def test_a_body_that_cannot_be_parsed_is_recorded(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    response = await token_client.post("/token", content=b"a=%zz", headers=FORM)
    _is_refusal(response, 400, "invalid_request")
    (record,) = token_bench.records()
    assert record["detail"].startswith("unparsable: ")


async def test_a_caller_that_hangs_up_is_left_alone(token_bench: TokenBench) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/token",
        "raw_path": b"/token",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": None,
    }
    await token_bench.app()(scope, receive, send)
    assert sent == []
    assert token_bench.records() == []


@pytest.mark.parametrize("part", ["issuer", "storage", "trail"])
async def test_what_is_down_is_503_and_retryable(
    token_bench: TokenBench, token_client: httpx.AsyncClient, part: str
) -> None:
    fields = _fields(token_bench)
    if part == "issuer":
        token_bench.identities.issuer.answers["/.well-known/openid-configuration"] = Answer(
            status=500
        )
    elif part == "storage":
        await token_bench.storage.close()
    else:
        await token_bench.trail.close()
    response = await token_client.post("/token", data=fields)
    _is_refusal(response, 503, "temporarily_unavailable")
    assert response.headers["retry-after"] == "5"


async def test_a_refusal_that_cannot_be_recorded_is_503(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    await token_bench.trail.close()
    with pytest.raises(AuditUnavailable):
        await token_bench.ask()
    for response in (await token_client.get("/token"), await token_client.post("/token")):
        _is_refusal(response, 503, "temporarily_unavailable")


async def test_an_unforeseen_failure_shows_nothing(
    token_bench: TokenBench,
    token_client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: object) -> str:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(token_bench.tokens, "issue", broken)
    with caplog.at_level(logging.DEBUG):
        response = await token_client.post("/token", data=_fields(token_bench))
    _is_refusal(response, 500, "server_error")
    identifier = response.json()["error_description"].rsplit(" ", 1)[1]
    assert identifier in caplog.text
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text + response.text


async def test_an_issuer_with_a_path_has_its_token_endpoint_there_too(
    token_bench: TokenBench,
) -> None:
    async with over(token_bench.app(issuer=f"{BROKER}/broker")) as client:
        for path in ("/token", "/broker/token"):
            response = await client.post(path, data=_fields(token_bench))
            assert response.status_code == 200


async def test_the_answer_to_json_and_to_a_form_is_the_same(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    fields = _fields(token_bench, scope="api.admin")
    by_form = await token_client.post("/token", data=fields)
    by_json = await token_client.post("/token", json=fields)
    assert by_form.content == by_json.content


def _limit(bench: TokenBench, limits: str) -> None:
    """Put limits on release-bot."""
    text = (POLICY % bench.identities.issuer.url).replace(
        "  release-bot:\n", f"  release-bot:\n    limits: {limits}\n"
    )
    bench.load(text)


async def test_an_agent_with_a_rate_gets_so_many_tokens(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    _limit(token_bench, "{rate: 2/minute}")
    for _ in range(2):
        response = await token_client.post("/token", data=_fields(token_bench))
        assert response.status_code == 200
    fields = _fields(token_bench)
    refused = await token_client.post("/token", data=fields)
    _is_refusal(refused, 429, "temporarily_unavailable")
    assert refused.headers["retry-after"] == "60"
    assert "agent release-bot: rate 2/minute" in refused.json()["error_description"]
    record = token_bench.records()[-1]
    assert (record["decision"], record["agent"]) == ("deny", "release-bot")
    assert record["detail"].startswith("limit_exceeded: the limit is reached: agent release-bot")
    assert refused.headers["broker-operation"] == record["operation"]
    token_bench.wait(61)
    # The refusal has not spent the proof.
    assert (await token_client.post("/token", data=fields)).status_code == 200


async def test_what_is_refused_is_not_counted_and_what_is_narrowed_is(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    _limit(token_bench, "{rate: 1/minute, total: 1}")
    for fields in (
        _fields(token_bench, scope="api.admin"),
        _fields(token_bench, scope="api.write"),
        _fields(token_bench) | {"subject_token": token_bench.proof(repository_id="999")},
    ):
        assert (await token_client.post("/token", data=fields)).status_code == 400
    answer = await token_client.post("/token", data=_fields(token_bench))
    assert answer.status_code == 200
    child = exchanged(answer.json()["access_token"], subject_token_type=ACCESS)
    fields = {name: values[0] for name, values in child.items()}
    _is_refusal(await token_client.post("/token", data=fields), 429, "temporarily_unavailable")


async def test_who_shows_a_proof_that_was_used_uses_up_no_rate(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    _limit(token_bench, "{rate: 2/minute}")
    used = _fields(token_bench)
    assert (await token_client.post("/token", data=used)).status_code == 200
    for _ in range(3):
        _is_refusal(await token_client.post("/token", data=used), 400, "invalid_request")
        assert token_bench.records()[-1]["detail"].startswith("replayed: ")
    assert (await token_client.post("/token", data=_fields(token_bench))).status_code == 200
    refused = await token_client.post("/token", data=_fields(token_bench))
    _is_refusal(refused, 429, "temporarily_unavailable")


async def test_what_cannot_be_counted_is_not_issued(
    token_bench: TokenBench, token_client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LimitsUnavailable("the server cannot count now")

    monkeypatch.setattr(token_bench.limiter.counts, "take_now", fail)
    _limit(token_bench, "{rate: 1/minute}")
    response = await token_client.post("/token", data=_fields(token_bench))
    _is_refusal(response, 503, "temporarily_unavailable")
    assert "requests cannot be counted now" in response.json()["error_description"]
