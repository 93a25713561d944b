"""Bodies that hold secrets, and what has to come of them: a plain, slow model of scrubbing."""

from __future__ import annotations

from hypothesis import strategies as st

from broker.gateway.scrub import SHORTEST
from broker.gateway.spellings import Spelling, texts

KEY = b"sk_live_7f3a9c/+canary"
LONG = b"eyJhbGciOiJS" + b"aZ9kQ3mB" * 124
FILLER = b"*"
MARKS = [b"%73", b"\\u006b", b"&#107;", b"%", b"\\", b"\\u00", b"&#", b"&", b"%4", b"%3"]

secrets = st.one_of(
    st.binary(min_size=SHORTEST, max_size=24).filter(lambda one: FILLER not in one),
    st.text("ab%\\&u0", min_size=SHORTEST, max_size=12).map(str.encode),
    st.text("ab +/", min_size=SHORTEST, max_size=12).map(str.encode),
)


@st.composite
def written(draw: st.DrawFn, secret: bytes) -> bytes:
    """A way to write a secret, or the beginning of one."""
    spelling = Spelling(draw(st.sampled_from(sorted(texts(secret)))))
    escaped = draw(st.sampled_from([False, False, True]))
    pieces = [draw(st.sampled_from(ways)) if escaped else ways[0] for ways in spelling._characters]
    return b"".join(pieces[: draw(st.sampled_from([None, None, None, -1, 3]))])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Some secrets, and a body that holds much of them."""
    known = draw(st.lists(secrets, min_size=1, max_size=2))
    noise = st.one_of(st.binary(max_size=12), st.sampled_from(MARKS))
    pieces = st.one_of(noise, *(written(secret) for secret in known))
    return known, b"".join(draw(st.lists(pieces, max_size=8)))


def places(known: list[bytes], body: bytes) -> list[tuple[int, int]]:
    """Where to replace, found the slow way: from the left, the longest first."""
    found, start = [], 0
    ways = [one for secret in known for one in map(Spelling, texts(secret))]
    while start < len(body):
        end = max(one.walk(body, start).end for one in ways)
        if end > start:
            found.append((start, end))
        start = max(end, start + 1)
    return found


def scrubbed_whole(known: list[bytes], body: bytes) -> bytes:
    result = bytearray(body)
    for start, end in places(known, body):
        result[start:end] = FILLER * (end - start)
    return bytes(result)
