from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.redaction import redact_path, redact_principal, redact_text, safe_line
from tests.broker.audit.samples import CREDENTIALS, LOOK_ALIKES, PERSONAL

SECRETS = {**CREDENTIALS, **PERSONAL}
MADE_UP_WORD = "swordfish"

words = st.text("abc XYZ-_.,:;!?()/'\n", max_size=30)
pieces = st.lists(
    st.sampled_from([*SECRETS.values(), *LOOK_ALIKES]) | words | st.text(max_size=20), max_size=6
)


def essence(sample: str) -> str:
    """The part of a sample that must be gone."""
    if MADE_UP_WORD in sample:
        return MADE_UP_WORD
    return sample.rsplit("=", 1)[-1] if "X-Amz" in sample else sample


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", ["{}", "see {} there", '"{}"', "({})", "x={}\n", "a, {}; b"])
def test_each_kind_is_taken_out(kind: str, around: str) -> None:
    sample = SECRETS[kind]
    redacted = redact_text(around.format(sample))
    assert "[redacted:" in redacted
    assert essence(sample) not in redacted
    assert redacted.startswith(around.partition("{}")[0])


def test_the_samples_are_of_25_kinds_at_least() -> None:
    assert len({redact_text(sample) for sample in SECRETS.values()}) >= 25
    assert len(CREDENTIALS) >= 25


@pytest.mark.parametrize("text", LOOK_ALIKES)
@pytest.mark.parametrize("around", ["{}", "deploy {} now", "/v1/items/{}"])
def test_look_alikes_stay(text: str, around: str) -> None:
    assert redact_text(around.format(text)) == around.format(text)


def test_what_names_a_value_stays_and_what_follows_it() -> None:
    assert redact_text("x?token=abc&page=2") == "x?token=[redacted:value]&page=2"
    assert redact_text("Cookie: a=b; c=d\nAccept: */*") == "Cookie: [redacted:value]\nAccept: */*"
    assert redact_text("https://u:p@host/x") == "https://[redacted:url-password]@host/x"


@pytest.mark.parametrize(
    "name",
    [
        "jane@example.com",
        "repo:acme/app:ref:refs/heads/main",
        "spiffe://example.org/ns/agents/sa/release-bot",
        "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "https://issuer.example.com:8443/tenant",
    ],
)
def test_names_of_principals_stay(name: str) -> None:
    assert redact_principal(name) == name


@pytest.mark.parametrize("kind", [kind for kind in CREDENTIALS if kind != "unknown key"])
def test_a_credential_does_not_pass_as_a_name(kind: str) -> None:
    assert essence(CREDENTIALS[kind]) not in redact_principal(CREDENTIALS[kind])


@given(pieces)
def test_redaction_is_done_once_and_for_all(parts: list[str]) -> None:
    once = redact_text(" ".join(parts))
    assert redact_text(once) == once


@given(st.sampled_from(sorted(SECRETS)), words, words)
def test_nothing_around_a_secret_hides_it(kind: str, before: str, after: str) -> None:
    redacted = redact_text(f"{before} {SECRETS[kind]} {after}")
    assert essence(SECRETS[kind]) not in redacted


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    [
        "a", "a b ", "eyJ", "ey", "a.", "1 ", "1-", "(111", "+1", "a@", "@a.", "%40", "://a:",
        "xoxb-", "a:", "a=", "a-", "aA1", "token=", "token:", "bearer ", "authorization: ",
        "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "s.", "M.", '\\"', "/services/T", "tel:",
        "123456789:", "dp.pt.a.", ".atlasv1.", " \t", "=",
    ],
)  # fmt: skip
def test_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    """A pattern that scans the rest of the text from each place in it would take an hour."""
    text = piece * (300_000 // len(piece))
    assert isinstance(redact_text(text), str)


@pytest.mark.timeout(60)
@given(st.text('aA1_-.:=@%/+ \t"\\([b', min_size=1, max_size=8), st.sampled_from(["", "k=", "x:"]))
def test_no_repetition_is_slow(piece: str, prefix: str) -> None:
    assert isinstance(redact_text(prefix + piece * (20_000 // len(piece))), str)


@pytest.mark.parametrize(
    ("path", "redacted"),
    [
        (b"/", "/"),
        (b"/v1/charges", "/v1/charges"),
        (b"/v1/charges/ch_3MmlLrLkdIwHu7ix0snN0B15", "/v1/charges/ch_3MmlLrLkdIwHu7ix0snN0B15"),
        (b"/v1/x?", "/v1/x?"),
        (b"/v1/x?a=1&b=secret&c", "/v1/x?a=…&b=…&c"),
        (b"/v1/x?a==1=2&&=3", "/v1/x?a=…&&=…"),
        (b"/v1/x?a=1?b=2", "/v1/x?a=…"),
        (b"/users/jane%40example.com/x", "/users/[redacted:email]/x"),
        (b"/users/jane@example.com/x", "/users/[redacted:email]/x"),
        (b"/files/a%20b%2Fc", "/files/a%20b%2Fc"),
        (b"/cards/4111111111111111", "/cards/[redacted:card]"),
        (b"/a\r\nb\x1b[31m\xff\x00", "/a\\r\\nb\\x1b[31m\\xff\\x00"),
        (b"", ""),
        (b"no-slash", "no-slash"),
    ],
)
def test_paths(path: bytes, redacted: str) -> None:
    assert redact_path(path) == redacted
    assert redact_path(path) == redacted, "the second answer comes from the cache"


@pytest.mark.parametrize(
    "kind", [kind for kind in CREDENTIALS if " " not in CREDENTIALS[kind] and "\n" not in
             CREDENTIALS[kind] and "://" not in CREDENTIALS[kind] and kind != "setting"]
)  # fmt: skip
def test_no_credential_survives_in_a_path_however_it_is_encoded(kind: str) -> None:
    sample = CREDENTIALS[kind]
    encoded = "".join(f"%{byte:02x}" for byte in sample.encode()).encode()
    for target in (
        b"/v1/" + sample.encode() + b"/x",
        b"/v1/" + encoded,
        b"/v1/x?" + sample.encode() + b"=1",
        b"/v1/x?a=" + sample.encode(),
    ):
        redacted = redact_path(target)
        assert essence(sample) not in redacted
        assert encoded.decode() not in redacted


def test_a_webhook_is_found_across_its_segments() -> None:
    path = CREDENTIALS["Slack webhook"].removeprefix("https://hooks.slack.com")
    assert redact_path(path.encode()) == "/services/[redacted:slack-webhook]"


def test_a_bot_token_is_found_behind_its_word() -> None:
    path = b"/bot" + CREDENTIALS["Telegram bot token"].encode() + b"/sendMessage"
    assert redact_path(path) == "/[redacted:telegram-token]/sendMessage"


def test_a_long_path_is_cut() -> None:
    assert len(redact_path(b"/a" * 50_000)) < 1200


@given(st.binary(max_size=80))
def test_whatever_a_path_holds_one_printable_line_comes_out(path: bytes) -> None:
    assert redact_path(path).isprintable()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain, with ünïcödé and 漢字", "plain, with ünïcödé and 漢字"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b[31mred\x1b[0m\x07", "\\x1b[31mred\\x1b[0m\\x07"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("zero\u200bwidth\ufeff\u2060", "zero\\u200bwidth\\ufeff\\u2060"),
        ("lines\u2028and\u2029paragraphs\x85", "lines\\u2028and\\u2029paragraphs\\x85"),
        ("half \ud800 a pair", "half \\ud800 a pair"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
    ],
)
def test_lines_are_printable(text: str, line: str) -> None:
    assert safe_line(text) == line
    assert safe_line(line) == line


def test_a_long_text_is_cut_with_its_length_and_digest() -> None:
    line = safe_line("abc" * 1000, limit=10)
    assert line.startswith("abcabcabca… [cut: 3000 characters, sha256:")
    other = safe_line("abc" * 999 + "abd", limit=10)
    assert other[:10] == line[:10]
    assert other != line


@given(st.text(st.characters(), max_size=300), st.integers(1, 100))
def test_every_text_becomes_a_line_of_bounded_length(text: str, limit: int) -> None:
    line = safe_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit + 110
    line.encode()
