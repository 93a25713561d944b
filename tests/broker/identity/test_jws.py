from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.identity import jwk, jws
from broker.identity.base import UnverifiedToken
from tests.fakes.keys import StrangersKey, b64, strangers_key

CLAIMS = {"sub": "s", "n": 1}
EVERY_ALGORITHM = sorted(jws.ALGORITHMS)


def parse(token: str) -> jws.UnverifiedJws:
    return jws.parse(UnverifiedToken(token))


def verified(token: str, key: StrangersKey, **changes: Any) -> dict[str, Any]:
    return jws.verify(parse(token), jwk.load(key.jwk(**changes)))


def code_of(token: str) -> str:
    with pytest.raises(InvalidToken) as refusal:
        parse(token)
    assert token[:40] not in str(refusal.value) or not token
    return refusal.value.code


GOOD = strangers_key().token(CLAIMS)
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        HEADER,
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.",
        f"{HEADER}..{SIGNATURE}",
        f".{PAYLOAD}.{SIGNATURE}",
        f"{PAYLOAD}.{SIGNATURE}",
        f"{GOOD}.",
        f"{GOOD}.{SIGNATURE}",
        f".{GOOD}",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}=.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}==",
        f"{HEADER} .{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.?{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.####{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}\u00e9",
        f"{HEADER}.{PAYLOAD}.\ud800",
        f"{HEADER}\uff0e{PAYLOAD}\uff0e{SIGNATURE}",
        json.dumps({"payload": PAYLOAD, "protected": HEADER, "signature": SIGNATURE}),
        f"{b64(b'[]')}.{PAYLOAD}.{SIGNATURE}",
        f"{b64(b'null')}.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{b64(b'[]')}.{SIGNATURE}",
        f"{HEADER}.{b64(b'Test')}.{SIGNATURE}",
        f"{HEADER}.{b64(b'{} {}')}.{SIGNATURE}",
        f"{HEADER}.{b64(chr(0xFEFF).encode() + b'{}')}.{SIGNATURE}",
        f"{HEADER}.{b64(b'{' + bytes([0xFF]) + b'}')}.{SIGNATURE}",
    ],
)
def test_what_is_no_compact_jws_is_malformed(token: str) -> None:
    assert code_of(token) == "malformed"


def test_unused_bits_of_base64url_are_refused() -> None:
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    position = last.index(SIGNATURE[-1])
    assert position % 16 == 0, "256 bytes leave four bits unused"
    for unused in range(1, 16):
        assert code_of(f"{GOOD[:-1]}{last[position + unused]}") == "malformed"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b'{"alg":"RS256","alg":"RS256"}', "malformed"),
        (b'{"alg":"none","\\u0061lg":"RS256"}', "malformed"),
        (b'{"alg":"RS256","x":' + b"[" * 3000 + b"]}", "malformed"),
        (b'{"alg":"RS256","x":1e999}', "malformed"),
        (b'{"alg":"RS256","x":NaN}', "malformed"),
        (b'{"alg":"RS256","x":' + b"1" * 2900 + b"}", "malformed"),
        (b'{"alg":"RS256","x":"\\ud800"}', "malformed"),
        (b'{"alg":"RS256","kid":""}', "malformed"),
        (b'{"alg":"RS256","kid":7}', "malformed"),
        (b'{"alg":"RS256","kid":null}', "malformed"),
        (b'{"alg":"RS256","kid":"' + b"k" * 257 + b'"}', "malformed"),
        (b'{"alg":"RS256","x":"' + b"x" * 4096 + b'"}', "too_large"),
        (b"{}", "algorithm_not_allowed"),
        (b'{"ALG":"RS256"}', "algorithm_not_allowed"),
        (b'{"alg":["RS256"]}', "algorithm_not_allowed"),
        (b'{"alg":{"RS256":1}}', "algorithm_not_allowed"),
        (b'{"alg":null}', "algorithm_not_allowed"),
        (b'{"alg":""}', "algorithm_not_allowed"),
        (b'{"alg":"none"}', "algorithm_not_allowed"),
        (b'{"alg":"NoNe"}', "algorithm_not_allowed"),
        (b'{"alg":"HS256"}', "algorithm_not_allowed"),
        (b'{"alg":"rs256"}', "algorithm_not_allowed"),
        (b'{"alg":"RS256 "}', "algorithm_not_allowed"),
        (b'{"alg":"RS1"}', "algorithm_not_allowed"),
        (b'{"alg":"ES256K"}', "algorithm_not_allowed"),
        (b'{"alg":"RSA-OAEP","enc":"A128GCM"}', "unsupported_header"),
        (b'{"alg":"RS256","crit":["exp"],"exp":1}', "unsupported_header"),
        (b'{"alg":"RS256","crit":[]}', "unsupported_header"),
        (b'{"alg":"RS256","crit":null}', "unsupported_header"),
        (b'{"alg":"RS256","b64":false,"crit":["b64"]}', "unsupported_header"),
        (b'{"alg":"RS256","b64":true}', "unsupported_header"),
        (b'{"alg":"RS256","zip":"DEF"}', "unsupported_header"),
        (b'{"alg":"RS256","jku":"https://evil.test/jwks"}', "unsupported_header"),
        (b'{"alg":"RS256","x5u":"https://evil.test/cert"}', "unsupported_header"),
        (b'{"alg":"RS256","x5c":["MIIB"]}', "unsupported_header"),
        (b'{"alg":"RS256","jwk":{"kty":"oct","k":"AAAA"}}', "unsupported_header"),
        (b'{"alg":"RS256","typ":"dpop+jwt"}', "wrong_type"),
        (b'{"alg":"RS256","typ":"logout+jwt"}', "wrong_type"),
        (b'{"alg":"RS256","typ":"secevent+jwt"}', "wrong_type"),
        (b'{"alg":"RS256","typ":"application/application/jwt"}', "wrong_type"),
        (b'{"alg":"RS256","typ":"text/jwt"}', "wrong_type"),
        (b'{"alg":"RS256","typ":" JWT"}', "wrong_type"),
        (b'{"alg":"RS256","typ":""}', "wrong_type"),
        (b'{"alg":"RS256","typ":null}', "wrong_type"),
        (b'{"alg":"RS256","typ":["JWT"]}', "wrong_type"),
    ],
)
def test_a_header_with_anything_odd_is_refused(header: bytes, code: str) -> None:
    assert code_of(strangers_key().raw(header, b"{}")) == code


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"RS256"}',
        b' { "alg" : "RS256" }\n',
        b'{"alg":"RS256","typ":"jwt"}',
        b'{"alg":"RS256","typ":"AT+JWT"}',
        b'{"alg":"RS256","typ":"application/at+jwt"}',
        b'{"alg":"RS256","x5t":"thumb","x5t#S256":"print","private":[{"deep":[1]}]}',
        b'{"alg":"RS256","ALG":"none","Crit":["x"]}',
    ],
)
def test_a_header_with_what_is_usual_or_unknown_is_read(header: bytes) -> None:
    assert parse(strangers_key().raw(header, b'{"a":1}')).claims == {"a": 1}


@pytest.mark.parametrize(
    "token",
    [
        "A" * 16_385,
        "A" * 5_000 + ".e30.AAAA",
        f"{HEADER}.{'A' * 16_384}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{'A' * 16_384}",
    ],
)
def test_size_is_judged_before_anything_is_decoded(token: str) -> None:
    assert code_of(token) == "too_large"


def test_five_parts_are_an_encrypted_token() -> None:
    assert code_of("eyJhbGciOiJSU0EtT0FFUCJ9.AAAA.BBBB.CCCC.DDDD") == "encrypted"


@pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
def test_a_good_token_of_each_algorithm_is_verified(algorithm: str) -> None:
    key = strangers_key(algorithm)
    assert verified(key.token(CLAIMS), key) == CLAIMS


@pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
def test_an_altered_signature_is_refused(algorithm: str) -> None:
    key = strangers_key(algorithm)
    signed, signature = key.token(CLAIMS).rsplit(".", 1)
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    with pytest.raises(InvalidToken) as refusal:
        verified(f"{signed}.{flipped}", key)
    assert refusal.value.code == "bad_signature"


@pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
def test_the_token_of_another_key_is_refused(algorithm: str) -> None:
    other = strangers_key(algorithm, kid="other", number=1)
    with pytest.raises(InvalidToken) as refusal:
        verified(other.token(CLAIMS), strangers_key(algorithm))
    assert refusal.value.code == "bad_signature"


@pytest.mark.parametrize("signed", EVERY_ALGORITHM)
@pytest.mark.parametrize("published", EVERY_ALGORITHM)
def test_an_algorithm_that_is_not_the_keys_is_refused(signed: str, published: str) -> None:
    if signed == published:
        return
    with pytest.raises(InvalidToken) as refusal:
        verified(strangers_key(signed).token(CLAIMS), strangers_key(published))
    assert refusal.value.code == "wrong_key_type"


def test_an_rsa_key_without_alg_serves_every_rsa_algorithm() -> None:
    key = strangers_key("PS384")
    assert verified(key.token(CLAIMS), key, alg=None) == CLAIMS


def test_repr_shows_no_part_that_makes_the_token() -> None:
    shown = repr(parse(GOOD))
    assert not any(part in shown for part in (HEADER, PAYLOAD, SIGNATURE, "'sub'"))


@given(st.text(max_size=200) | st.from_regex(r"[\w\-]{0,40}\.[\w\-]{0,40}\.[\w\-]{0,40}"))
def test_whatever_comes_in_only_invalid_token_comes_out(text: str) -> None:
    with pytest.raises(InvalidToken):
        parse(text)


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_is_encoded_only_invalid_token_comes_out(
    header: bytes, payload: bytes, signature: bytes
) -> None:
    try:
        parse(f"{b64(header)}.{b64(payload)}.{b64(signature)}")
    except InvalidToken:
        return
    assert json.loads(header)["alg"] in jws.ALGORITHMS


SIGNED = {algorithm: strangers_key(algorithm) for algorithm in ("RS256", "PS256", "ES256", "EdDSA")}


@given(st.sampled_from(sorted(SIGNED)), st.data())
def test_a_token_with_one_character_changed_is_never_verified(
    algorithm: str, data: st.DataObject
) -> None:
    key = SIGNED[algorithm]
    token = key.token(CLAIMS)
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters().filter(lambda drawn: drawn != token[position]))
    with pytest.raises(InvalidToken):
        verified(token[:position] + character + token[position + 1 :], key)


@given(st.data())
def test_a_token_with_characters_cut_or_added_is_never_verified(data: st.DataObject) -> None:
    key = SIGNED["ES256"]
    token = key.token(CLAIMS)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 4)))
    inserted = data.draw(st.text(alphabet="ABab01-_.=\n ", max_size=4))
    changed = token[:start] + inserted + token[end:]
    if changed == token:
        return
    with pytest.raises(InvalidToken):
        verified(changed, key)


json_scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "jwk", "jku", "x5c", "cty"]),
        json_scalars | st.sampled_from(["RS256", "ES256", "none", "HS256", "JWT"]),
        max_size=4,
    )
)
def test_a_header_edited_afterwards_is_never_verified(edits: dict[str, Any]) -> None:
    key = SIGNED["ES256"]
    header = {"alg": "ES256", "kid": "key-1", "typ": "JWT"}
    _, payload, signature = key.token(CLAIMS).split(".")
    edited = json.dumps(header | edits).encode()
    if header | edits == header:
        edited = json.dumps(header, indent=1).encode()
    with pytest.raises(InvalidToken):
        verified(f"{b64(edited)}.{payload}.{signature}", key)
