from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import InvalidToken, IssuerUnavailable, UpstreamError
from broker.identity.jwks import KeySet, parse_key_set
from tests.fakes.issuer import DISCOVERY, JWKS, Answer, Bench, json_answer, verified
from tests.fakes.keys import strangers_key

if TYPE_CHECKING:
    from collections.abc import Callable

RSA = strangers_key("RS256", "rsa").jwk()
EC = strangers_key("ES256", "ec").jwk()


def key_set(*published: Any) -> KeySet:
    return parse_key_set(json.dumps({"keys": published}).encode())


def refused_code(keys: KeySet, kid: str | None, algorithm: str = "RS256") -> str:
    with pytest.raises(InvalidToken) as refusal:
        keys.find(kid, algorithm)
    return refusal.value.code


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b'{"keys": [], "keys": []}',
        b"not json",
        b'{"keys": ' + b"[" * 10_000,
        json.dumps({"keys": [EC] * 101}).encode(),
        json.dumps({"keys": [EC, {"kty": "oct", "kid": "mac", "k": "AAAA"}]}).encode(),
        json.dumps({"keys": [{**RSA, "d": "AQAB"}, EC]}).encode(),
    ],
)
def test_a_document_that_is_no_key_set(document: bytes) -> None:
    with pytest.raises(UpstreamError):
        parse_key_set(document)


def test_keys_that_cannot_verify_do_not_spoil_the_others() -> None:
    keys = key_set(
        {**RSA, "kid": "for-encryption", "use": "enc"}, None, 7, {"kty": "AKP", "kid": "new"}, EC
    )
    assert keys.find("ec", "ES256").kid == "ec"
    assert refused_code(keys, "for-encryption") == "unusable_key"
    assert refused_code(keys, "new") == "unusable_key"
    assert refused_code(keys, "absent") == "unknown_key"


@pytest.mark.parametrize("twins", [[EC, EC], [EC, {**RSA, "kid": "ec"}], [{"kid": "ec"}, EC]])
def test_a_kid_used_twice_names_no_key(twins: list[Any]) -> None:
    keys = key_set(*twins, RSA)
    assert refused_code(keys, "ec", "ES256") == "unusable_key"
    assert keys.find("rsa", "RS256").kid == "rsa"


def test_without_a_kid_the_only_key_for_the_algorithm_serves() -> None:
    assert key_set(RSA, EC).find(None, "ES256").kid == "ec"
    assert refused_code(key_set(RSA, EC), None, "ES384") == "missing_kid"
    assert refused_code(key_set(RSA, {**RSA, "kid": "rsa-2"}), None) == "missing_kid"


async def test_keys_are_fetched_once_and_again_when_no_longer_fresh(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    for seconds, fetches in [(0, 1), (299, 1), (2, 2), (299, 2), (2, 3)]:
        identity_bench.monotonic.now += seconds
        await verified(source, issuer.token())
        assert issuer.requests[JWKS] == issuer.requests[DISCOVERY] == fetches


async def test_a_hundred_tokens_at_once_cause_one_fetch(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    issuer.answers[DISCOVERY] = Answer(
        json.dumps({"issuer": issuer.url, "jwks_uri": issuer.url + JWKS}).encode(), delay=0.1
    )
    tokens = [issuer.token(jti=f"id-{number}") for number in range(100)]
    identities = await asyncio.gather(*(verified(source, token) for token in tokens))
    assert len({identity.token_id for identity in identities}) == 100
    assert issuer.requests == {DISCOVERY: 1, JWKS: 1}


async def test_one_caller_hanging_up_does_not_fail_the_others(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    issuer.answers[JWKS] = Answer(json.dumps({"keys": [RSA]}).encode(), delay=0.2)
    token = issuer.token(strangers_key("RS256", "rsa"))
    impatient = asyncio.create_task(verified(source, token))
    patient = asyncio.create_task(verified(source, token))
    await asyncio.sleep(0.05)
    impatient.cancel()
    assert (await patient).issuer == issuer.url
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_rotated_key_is_found_and_a_withdrawn_one_forgotten(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    old, new = issuer.keys[0], strangers_key("ES256", "key-2")
    await verified(source, issuer.token(old))
    issuer.keys = [new]
    identity_bench.monotonic.now += 30
    assert (await verified(source, issuer.token(new))).issuer == issuer.url
    with pytest.raises(InvalidToken) as refusal:
        await verified(source, issuer.token(old))
    assert refusal.value.code == "unknown_key"


async def test_an_issuer_that_withdraws_every_key_is_believed(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    await verified(source, issuer.token())
    token, issuer.keys = issuer.token(), []
    identity_bench.monotonic.now += 301
    with pytest.raises(InvalidToken) as refusal:
        await verified(source, token)
    assert refusal.value.code == "unknown_key"


async def test_an_issuer_with_a_path_and_a_configured_jwks_uri(identity_bench: Bench) -> None:
    issuer = identity_bench.issuer
    realm = f"{issuer.url}/realms/acme"
    document = {"issuer": realm, "jwks_uri": issuer.url + JWKS}
    issuer.answers[f"/realms/acme{DISCOVERY}"] = json_answer(document)
    await verified(identity_bench.source(issuer=realm), issuer.token(iss=realm))
    assert issuer.requests == {f"/realms/acme{DISCOVERY}": 1, JWKS: 1}
    configured = identity_bench.source(issuer=realm, jwks_uri=issuer.url + JWKS)
    await verified(configured, issuer.token(iss=realm))
    assert issuer.requests == {f"/realms/acme{DISCOVERY}": 1, JWKS: 2}


async def test_a_trailing_slash_is_part_of_the_issuer_but_doubles_no_slash(
    identity_bench: Bench,
) -> None:
    issuer = identity_bench.issuer
    slashed = f"{issuer.url}/"
    document = {"issuer": slashed, "jwks_uri": issuer.url + JWKS}
    issuer.answers[DISCOVERY] = json_answer(document)
    source = identity_bench.source(issuer=slashed)
    await verified(source, issuer.token(iss=slashed))
    with pytest.raises(InvalidToken) as refusal:
        await verified(source, issuer.token(iss=issuer.url))
    assert refusal.value.code == "wrong_issuer"


def document(change: Callable[[Bench], dict[str, Any]]) -> Callable[[Bench], Answer]:
    def answer(bench: Bench) -> Answer:
        good = {"issuer": bench.issuer.url, "jwks_uri": bench.issuer.url + JWKS}
        return json_answer(good | change(bench))

    return answer


BAD_DISCOVERY: dict[str, Callable[[Bench], Answer]] = {
    "another issuer": document(lambda _: {"issuer": "https://evil.test"}),
    "issuer with a slash": document(lambda bench: {"issuer": bench.issuer.url + "/"}),
    "issuer missing": document(lambda _: {"issuer": None}),
    "issuer an array": document(lambda bench: {"issuer": [bench.issuer.url]}),
    "jwks_uri missing": document(lambda _: {"jwks_uri": None}),
    "jwks_uri of a file": document(lambda _: {"jwks_uri": "file:///etc/passwd"}),
    "jwks_uri plain http": document(lambda _: {"jwks_uri": "http://issuer.test/jwks"}),
    "jwks_uri with a user": document(
        lambda bench: {"jwks_uri": bench.issuer.url.replace("//", "//user@") + JWKS}
    ),
    "an array": lambda _: json_answer([]),
    "duplicate members": lambda bench: Answer(
        f'{{"issuer":"x","issuer":"{bench.issuer.url}","jwks_uri":"x"}}'.encode()
    ),
    "no JSON": lambda _: Answer(b"<html>"),
    "empty": lambda _: Answer(b""),
    "not found": lambda _: Answer(status=404),
}


@pytest.mark.parametrize("answer", BAD_DISCOVERY.values(), ids=BAD_DISCOVERY.keys())
async def test_a_discovery_document_that_is_refused(
    identity_bench: Bench, answer: Callable[[Bench], Answer]
) -> None:
    issuer = identity_bench.issuer
    issuer.answers[DISCOVERY] = answer(identity_bench)
    with pytest.raises(IssuerUnavailable, match=issuer.url):
        await verified(identity_bench.source(), issuer.token())
    assert issuer.requests[JWKS] == 0


async def test_probe_says_why_an_issuers_keys_cannot_be_had(identity_bench: Bench) -> None:
    source, issuer = identity_bench.source(), identity_bench.issuer
    await source.probe()
    assert issuer.requests[JWKS] == 1
    broken = identity_bench.source()
    issuer.answers[JWKS] = Answer(status=500)
    with pytest.raises(IssuerUnavailable, match=f"{JWKS} answered 500"):
        await broken.probe()
