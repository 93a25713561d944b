"""Attacks on the token endpoint."""

from __future__ import annotations

import asyncio
import gzip
import multiprocessing
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker.identity.local import client_assertion, new_agent_key
from broker.model import EnrolledKey
from broker.storage.sqlite import SqliteStorage
from broker.token_request import ACCESS, EXCHANGE
from tests.fakes.issuer import BROKER
from tests.fakes.token_bench import (
    JWT,
    client,
    exchanged,
    local_exchange,
    narrowed,
    over,
    serve,
)

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    import httpx

    from tests.fakes.token_bench import TokenBench

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
PER_PROCESS = 50
PROCESSES = 3


def _present(directory: Path, assertion: str, start: Barrier, writer: str) -> list[tuple[int, str]]:
    """Present one assertion many times at once from a process of its own."""

    async def present() -> list[tuple[int, str]]:
        async with local_exchange(directory, writer) as exchange, over(serve(exchange)) as http:
            fields = {name: values[0] for name, values in client(assertion).items()}
            start.wait(30)
            answers = await asyncio.gather(
                *(http.post("/token", data=fields) for _ in range(PER_PROCESS))
            )
            return [(answer.status_code, answer.text) for answer in answers]

    return asyncio.run(present())


async def test_t1_one_assertion_many_times_at_once_across_processes(tmp_path: Path) -> None:
    key = new_agent_key()
    storage = SqliteStorage(tmp_path / "broker.db")
    await storage.enrol(EnrolledKey("helper", key.kid, key.public_jwk, 0))
    assertion = client_assertion(key.pem, "helper", BROKER)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        start: Any = manager.Barrier(PROCESSES)
        with context.Pool(PROCESSES) as pool:
            answers = await asyncio.to_thread(
                pool.starmap,
                _present,
                [(tmp_path, assertion, start, f"w{n}") for n in range(PROCESSES)],
            )
    statuses = [status for process in answers for status, _ in process]
    assert len(statuses) == PROCESSES * PER_PROCESS
    assert statuses.count(200) == 1
    refusals = {text for process in answers for status, text in process if status != 200}
    assert len(refusals) == 1
    assert "used before" in refusals.pop()
    await storage.close()


DEEP = b"[" * 30_000
AMBIGUOUS = {
    "duplicate keys": b'{"grant_type": "%b", "scope": "a", "scope": "b"}' % EXCHANGE.encode(),
    "escaped duplicate": b'{"scope": "a", "sc\\u006fpe": "b"}',
    "Scope beside scope": b'{"grant_type": "%b", "scope": "a", "Scope": "b"}' % EXCHANGE.encode(),
    "depth": b'{"options": ' + DEEP,
    "closed depth": b'{"options": ' + DEEP + b"]" * len(DEEP) + b"}",
    "5,000 digits": b'{"ttl": ' + b"9" * 5000 + b"}",
    "5,000 digits elsewhere": b'{"anything": [' + b"9" * 5000 + b"]}",
    "a number too large": b'{"ttl": 1e999}',
    "not a number": b'{"ttl": NaN}',
}


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_t2_json_with_two_readings(
    token_bench: TokenBench, token_client: httpx.AsyncClient, body: bytes
) -> None:
    started = time.perf_counter()
    response = await token_client.post("/token", content=body, headers=JSON)
    assert time.perf_counter() - started < 20  # a bound against hangs; the work itself is short
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    (record,) = token_bench.records()
    assert record["decision"] == "deny"


@pytest.mark.parametrize("scope", ["api.read&Scope=api.admin", "api.read&SCOPE=", "a&scope=b"])
async def test_t2_forms_with_two_readings(token_client: httpx.AsyncClient, scope: str) -> None:
    body = f"grant_type={EXCHANGE}&subject_token=x&subject_token_type={JWT}&scope={scope}"
    response = await token_client.post("/token", content=body, headers=FORM)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "scope", ["api.admin", "api.read api.admin", "API.READ", "api.*", "*", "api.read.more"]
)
async def test_t3_a_scope_outside_policy(token_bench: TokenBench, scope: str) -> None:
    proof = token_bench.proof()
    refusal = await token_bench.refused(exchanged(proof, scope=scope))
    assert refusal.error == "invalid_scope"
    assert "allowed: api.read api.write" in str(refusal)
    # Not narrowed to what is allowed, and nothing spent: the same proof is good for less.
    assert {record["phase"] for record in token_bench.records()} == {"outcome"}
    issued = await token_bench.exchange.token(exchanged(proof, scope="api.read"))
    assert issued.scopes == ("api.read",)


class _Body:
    """A request body that counts how much of it was read."""

    def __init__(self, chunk: bytes, chunks: int) -> None:
        self.chunk, self.chunks, self.read = chunk, chunks, 0

    async def receive(self) -> dict[str, Any]:
        self.read += 1
        more = self.read < self.chunks
        return {"type": "http.request", "body": self.chunk, "more_body": more}


async def _post(bench: TokenBench, body: _Body, headers: dict[str, str]) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/token",
        "raw_path": b"/token",
        "root_path": "",
        "scheme": "https",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 1),
        "server": ("broker.test", 443),
    }
    await bench.app()(scope, body.receive, send)
    assert b'"error":"invalid_request"' in sent[1]["body"]
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("length", ["65537", "1000000000", "9" * 5000])
async def test_t6_a_length_over_the_cap_is_refused_unread(
    token_bench: TokenBench, length: str
) -> None:
    body = _Body(b"x" * 1000, 100)
    assert await _post(token_bench, body, {**FORM, "Content-Length": length}) == 413
    assert body.read == 0
    assert token_bench.records()[0]["detail"].startswith("too_large: ")


async def test_t6_a_body_without_a_length_is_read_up_to_the_cap(token_bench: TokenBench) -> None:
    body = _Body(b"a" * 16_384, 1_000_000)
    assert await _post(token_bench, body, FORM) == 413
    assert body.read == 5


async def test_t6_a_million_fields(token_bench: TokenBench) -> None:
    body = _Body(b"a=1&" * 4096, 245)
    assert await _post(token_bench, body, FORM) == 413
    assert body.read == 5
    few_bytes = _Body(b"&" * 60_000, 1)
    assert await _post(token_bench, few_bytes, FORM) == 400


async def test_t6_a_gzip_bomb_is_refused_unread(token_bench: TokenBench) -> None:
    bomb = gzip.compress(b"a=1&" * 10_000_000)
    body = _Body(bomb, 1)
    headers = {**FORM, "Content-Encoding": "gzip", "Content-Length": str(len(bomb))}
    assert await _post(token_bench, body, headers) == 415
    assert body.read == 0


async def test_t7_unknown_issuer_agent_and_claim_are_answered_alike(
    token_bench: TokenBench, token_client: httpx.AsyncClient
) -> None:
    requests = {
        "issuer": exchanged(token_bench.proof(iss="https://unknown.test")),
        "agent": exchanged(token_bench.proof(), client_id="nobody"),
        "claim": exchanged(token_bench.proof(repository_id="999")),
        "subject": exchanged(token_bench.proof(repository_id="222")),
    }
    answers, headers = set(), set()
    for parameters in requests.values():
        response = await token_client.post("/token", data=dict(parameters))
        answers.add((response.status_code, response.content))
        headers.add(tuple(name for name in response.headers))
    assert len(answers) == len(headers) == 1
    # Each was held until the same moment, whatever it took to find out.
    assert token_bench.slept == [token_bench.slept[0]] * len(requests)
    assert len({record["detail"] for record in token_bench.records()}) == len(requests)


async def test_t8_a_task_token_is_no_workload_identity(token_bench: TokenBench) -> None:
    token = (await token_bench.ask()).access_token
    for parameters in (
        exchanged(token),
        exchanged(token, subject_token_type="urn:ietf:params:oauth:token-type:id_token"),
        client(token),
        narrowed(token, "api.read", actor_token=token, actor_token_type=JWT),
    ):
        refusal = await token_bench.refused(parameters)
        assert refusal.error in {"invalid_request", "invalid_client"}
        assert "not accepted" in str(refusal)


async def test_t8_a_task_token_of_another_agent(token_bench: TokenBench) -> None:
    token = (await token_bench.ask()).access_token
    refusal = await token_bench.refused(narrowed(token, "api.read", client_id="helper"))
    assert (refusal.cause, "not accepted" in str(refusal)) == ("wrong_client", True)


@pytest.mark.parametrize(
    "wrong",
    [
        ACCESS,
        "urn:ietf:params:oauth:token-type:refresh_token",
        "urn:ietf:params:oauth:token-type:saml2",
        "access_token",
        "jwt",
    ],
)
async def test_t8_a_wrong_subject_token_type(token_bench: TokenBench, wrong: str) -> None:
    refusal = await token_bench.refused(exchanged(token_bench.proof(), subject_token_type=wrong))
    assert refusal.error == "invalid_request"
