"""Requests as an attacker would send them: well-formed, and slightly wrong in many ways.

Where the task token belongs they have a placeholder, so that they can be shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from zlib import crc32

from tests.differential.corpus import (
    BENIGN,
    BODIES,
    CHUNKS,
    CODINGS,
    CONTROLLED,
    DECLARED,
    JUDGED,
    LENGTHS,
    OWN_KEY,
    SEGMENTS,
    TRAILERS,
    TYPES,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    Mutation = Callable[[Random, "Draft"], None]

TOKEN: Final = b"@TOKEN@"
BASIC: Final = b"@BASIC@"
"""What is replaced by a task token, and by `user:<task token>` in base64."""

HOST: Final = b"Host: gateway.test"

SLOTS: Final = {
    b"api": b"Authorization: Bearer " + TOKEN,
    b"based": b"Authorization: Bearer " + TOKEN,
    b"keyed": b"X-Api-Key: " + TOKEN,
    b"basic": b"Authorization: Basic " + BASIC,
    b"query": b"Authorization: Bearer " + TOKEN,
    b"cookie": b"Cookie: a=1; session=" + TOKEN,
    b"judged": b"Authorization: Bearer " + TOKEN,
}

PATHS: Final = (
    *[b"/v1/TAG", b"/v1/items/TAG", b"/v1/TAG/x", b"/v1/items/TAG/a%20b",
    b"/v1/caf%C3%A9/TAG/"] * 3,
    *(b"/v1/TAG/early", b"/v1/TAG/close", b"/v1/TAG/chunked"),
    *(b"/v1/admin/TAG", b"/v1/TAG/secret", b"/v2/TAG", b"/TAG"),
)  # fmt: skip


def tag(number: int, index: int) -> bytes:
    """Return the path segment that names one request of one case, with a check sum."""
    name = b"c%x.%x" % (number, index)
    return b"%b.%03x" % (name, crc32(name) & 0xFFF)


@dataclass
class Draft:
    """A request before it is written down; `lines` are its header fields."""

    tag: bytes
    service: bytes
    method: bytes
    path: bytes
    query: bytes | None = None
    target: bytes | None = None
    lines: list[bytes] = field(default_factory=list)
    body: bytes = b""
    version: bytes = b" HTTP/1.1"
    before: bytes = b""
    end: bytes = b"\r\n"

    def render(self) -> bytes:
        """Return its bytes."""
        target = self.target
        if target is None:
            target = b"/" + self.service + self.path
        if self.query is not None:
            target += b"?" + self.query
        first = self.before + self.method + b" " + target + self.version
        head = self.end.join([first, *self.lines, b"", b""])
        return head.replace(b"TAG", self.tag) + self.body.replace(b"TAG", self.tag)

    def put(self, random: Random, line: bytes) -> None:
        """Add a header line somewhere."""
        self.lines.insert(random.randint(0, len(self.lines)), line)

    def framed(self, *lines: bytes, body: bytes) -> None:
        """Frame the body in this way instead."""
        kept = [one for one in self.lines if not one.startswith((b"Content-L", b"Transfer-E"))]
        self.lines = [*kept, *lines]
        self.body = body
        self.method = b"POST" if self.method in {b"GET", b"HEAD"} else self.method


def chunked(random: Random, body: bytes) -> bytes:
    """Return a body in chunks of several sizes."""
    pieces, position = [], 0
    while position < len(body):
        size = random.randint(1, len(body))
        piece = body[position : position + size]
        form = random.choice([b"%x", b"%X", b"00%x"])
        pieces.append(form % len(piece) + b"\r\n" + piece + b"\r\n")
        position += size
    return b"".join(pieces) + b"0\r\n\r\n"


def smuggled(random: Random) -> bytes:
    """Return a request that is hidden in another one's body."""
    return (
        random.choice([b"GET", b"DELETE", b"POST", b"PURGE"])
        + random.choice([b" /api/v1/admin/TAG", b" /api/v1/TAG/hidden", b" /admin/TAG"])
        + b" HTTP/1.1\r\n"
        + random.choice([HOST, b"Host: 127.0.0.1", b"X: y"])
        + b"\r\n"
        + random.choice([b"", b"Authorization: Bearer " + TOKEN + b"\r\n"])
        + random.choice([b"\r\n", b"", b"X-Rest: "])
    )


def draft(random: Random, number: int, index: int) -> Draft:
    """Return a request that is as it should be, though policy may not allow it."""
    service = random.choice([b"api", b"api", b"api", *SLOTS])
    method = random.choice([b"GET"] * 5 + [b"POST"] * 4 + [b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
    made = Draft(tag(number, index), service, method, random.choice(PATHS))
    made.lines = [HOST, SLOTS[service], *random.sample(BENIGN, random.randint(0, 4))]
    random.shuffle(made.lines)
    if random.random() < 0.3:
        made.query = random.choice([b"", b"a=1&b=%2e%2e%2f", b"q=[x]|/../y", OWN_KEY + b"z=1"])
    if service == b"judged":
        _carry(random, made, random.choice(JUDGED), TYPES[0])
    elif method in {b"POST", b"PUT"}:
        body = random.choice(
            [b"", b"x", b'{"amount": 1}', b"a=b&c=d", b"\r\n\r\n", bytes(range(256))]
        )
        if random.random() < 0.5:
            made.lines.append(b"Content-Length: %d" % len(body))
            made.body = body
        else:
            made.lines.append(b"Transfer-Encoding: chunked")
            made.body = chunked(random, body)
    return made


def _carry(random: Random, made: Draft, body: bytes, kind: bytes) -> None:
    """Give a request a body of a media type, framed in one way or the other."""
    made.lines = [line for line in made.lines if not line.startswith(b"Content-Type")]
    if made.query is not None and random.random() < 0.8:
        made.query = None
    if kind:
        made.put(random, kind)
    if random.random() < 0.5:
        made.framed(b"Content-Length: %d" % len(body), body=body)
    else:
        made.framed(b"Transfer-Encoding: chunked", body=chunked(random, body))


def _bodies(random: Random, made: Draft) -> None:
    if made.service != b"judged":
        made.lines[made.lines.index(SLOTS[made.service])] = SLOTS[b"judged"]
        made.service = b"judged"
    body = (
        havoc_of(random, random.choice(JUDGED)) if random.random() < 0.3 else random.choice(BODIES)
    )
    _carry(random, made, body, random.choice([TYPES[0], TYPES[0], *TYPES]))


def havoc_of(random: Random, data: bytes) -> bytes:
    """Return the bytes with one of them another one."""
    at = random.randrange(len(data))
    return data[:at] + bytes([random.randint(0, 255)]) + data[at + 1 :]


def _valid(_: Random, __: Draft) -> None:
    pass


def _length_and_chunks(random: Random, made: Draft) -> None:
    inner = smuggled(random)
    body = random.choice([b"0\r\n\r\n" + inner, b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)])
    length = random.choice([len(body), 4, 5, 0, len(inner)])
    coding = random.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:chunked"])
    lines = [b"Content-Length: %d" % length, coding]
    random.shuffle(lines)
    made.framed(*lines, body=body)


def _codings(random: Random, made: Draft) -> None:
    body = b"0\r\n\r\n" + random.choice([b"", smuggled(random)])
    lines = [random.choice(CODINGS)]
    if random.random() < 0.5:
        lines.append(random.choice([b"Content-Length: %d" % len(body), b"Content-Length: 0"]))
    made.framed(*lines, body=body)


def _lengths(random: Random, made: Draft) -> None:
    body = random.choice([b"x", b"hello", smuggled(random)])
    claimed = random.choice([len(body)] * 3 + [0, 1, len(body) + 1])
    form = random.choice(LENGTHS)
    made.framed(form.replace(b"%d", b"%d" % claimed), body=body)


def _chunks(random: Random, made: Draft) -> None:
    body = random.choice(CHUNKS) + random.choice([b"", b"", smuggled(random)])
    made.framed(b"Transfer-Encoding: chunked", body=body)


def _line_ends(random: Random, made: Draft) -> None:
    choice = random.randint(0, 6)
    if choice == 0:
        made.end = random.choice([b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\x00"])
    elif choice == 1:
        made.before = random.choice(
            [b"\r\n", b"\n", b"\r", b" ", b"\x00", b"\xef\xbb\xbf", b"\r\n" * 4]
        )
    else:
        made.put(random, random.choice([
            b"X-Fold: a\r\n b", b"X-Fold: a\r\n\tb", b"X: a\nY: b", b"X: a\rY: b", b"X: \x00",
            b"X: a\x0bb",
            b"X: a\x0cb", b" X: a", b"\tX: a", b"X", b"", b"\r", b"X: a\r", b"X: a\n", b"\x00",
            b"X: \x7f",
            b"X: a\n\nGET /api/v1/admin/TAG HTTP/1.1\nHost: gateway.test",
            b"X: a\r\n\r\nGET /api/v1/admin/TAG HTTP/1.1\r\nHost: gateway.test",
        ]))  # fmt: skip


def _targets(random: Random, made: Draft) -> None:
    whole = b"/" + made.service + made.path
    segment = random.choice(SEGMENTS)
    made.target = random.choice([
        b"/" + made.service + b"/v1/" + segment + b"/TAG",
        b"/" + made.service + b"/" + segment + b"/TAG",
        b"/" + made.service + b"/v1/TAG/" + segment, b"/" + segment + whole, b"/v1" + whole,
        b"http://gateway.test" + whole, b"HTTP://GATEWAY.test" + whole, b"http://evil.test" + whole,
        b"http://gateway.test@evil.test" + whole, b"http://a@gateway.test" + whole,
        b"https://gateway.test" + whole, b"http://gateway.test:80" + whole, b"http:" + whole,
        b"//gateway.test" + whole, b"gateway.test:80", b"*", b"?" + whole, whole + b"#x",
        whole + b"??a=?",
        b" " + whole, whole + b" x", whole + b"\t", whole + b"\x00", whole + b"\xc3\xa9", whole[1:],
        whole + b"?a b", whole + b"?a\xff", whole + b"?x=http://e/#", whole.replace(b"/v1", b"/V1"),
        b"http://gateway.test?" + whole, b"http://gateway.test" + b"/" + whole,
        whole + b"?" + b"a" * 9000,
        b"/" + made.service, b"/" + made.service + b"?/v1/TAG", b"/%61pi/v1/TAG", b"/API/v1/TAG",
    ])  # fmt: skip


def _versions(random: Random, made: Draft) -> None:
    made.version = random.choice([
        b"", b" HTTP/0.9", b" HTTP/1.0", b" HTTP/2.0", b" HTTP/1.10", b" http/1.1", b" HTTP/1.1 ",
        b"\tHTTP/1.1",
        b"  HTTP/1.1", b" HTTP/11", b" HTTP/1,1", b" HTTP/1.1 HTTP/1.1", b" HTTP/1.\xb1",
        b" HTTP/1.2", b" ",
        b" HTTP/2.0\r\n\r\nSM", b" ICY/1.1", b" HTTPS/1.1", b" HTTP/1.1\x00",
    ])  # fmt: skip
    if random.random() < 0.1:
        made.before = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _methods(random: Random, made: Draft) -> None:
    made.method = random.choice([
        b"get", b"Get", b"TRACE", b"CONNECT", b"PRI", b"G\x00ET", b"GET\t", b"", b"GET ",
        b"G" * 300, b"M-SEARCH",
        b"PROPFIND", b"PATCH", b"QUERY", b"SOURCE", b"LINK", b"GET/", b"PURGE", b"\xc7ET",
        b"OPTIONS", b"BREW",
    ])  # fmt: skip


def _hosts(random: Random, made: Draft) -> None:
    host = made.lines.index(HOST)
    made.lines[host : host + 1] = random.choice([
        [], [HOST, HOST], [HOST, b"Host: evil.test"], [HOST, b"host: gateway.test"], [b"Host: "],
        [b"Host : a"],
        [b"Host: a, b"], [b"Host: a@b"], [b"Host: a/b"], [b"Host: a b"], [b"Host: [::1]:80"],
        [b"Host: a:99999"],
        [b"Host: gateway.test:80"], [b"Host:gateway.test\t"], [b"Host: a\r\n b"], [b"Host: a\x00"],
        [b"Host: a?b"],
        [b" Host: gateway.test"], [b"Hos\x74: \x00"], [HOST, b"X-Host: evil",
        b"X-Forwarded-Host: evil"],
        [b"Host: evil.test"],
    ])  # fmt: skip


def _names(random: Random, made: Draft) -> None:
    name = random.choice(
        [b"X-Kept", b"Authorization", b"Content-Length", b"Host", b"Cookie", b"X-Api-Key"]
    )
    odd = bytes([random.randint(0, 255)])
    made.put(random, random.choice([
        name + odd + b": 1", odd + name + b": 1", name + b" : 1", b": 1", b"X" + odd * 3 + b": 1",
        name,
        name.replace(b"-", b"_") + b": 1", name.upper() + b": 1", name + b"\t: 1",
        b"(" + name + b"): 1",
        b"X[" + name + b"]: 1", b"X!#$%&'*+.^_`|~: 1", name + b":" * 3 + b"1",
    ]))  # fmt: skip


def _values(random: Random, made: Draft) -> None:
    odd = bytes(random.randint(0, 255) for _ in range(random.randint(1, 3)))
    made.put(
        random, b"X-Value: " + random.choice([b"a" + odd + b"b", odd, b"a" * 20000, b"a" + odd])
    )


def _controlled(random: Random, made: Draft) -> None:
    for name in random.sample(CONTROLLED[:-3], random.randint(1, 4)):
        spelling = random.choice(
            [name, name.lower(), name.upper(), name.replace(b"-", b"_"), name.title()]
        )
        value = random.choice(
            [b"/v1/admin/TAG", b"DELETE", b"evil.test", b"trailers", b"a, b", b""]
        )
        made.put(random, spelling + b":" + random.choice([b"", b" "]) + value)
    for line in random.sample(
        [b"Authorization: Basic bWluZTptaW5l", b"authorization: Bearer mine", b"X-Api-Key: mine",
         b"x_api_key: mine", b"Cookie: session=mine; z=1",
         b"AUTHORIZATION: Digest mine"], random.randint(0, 2)
    ):  # fmt: skip
        made.put(random, line)


def _connection(random: Random, made: Draft) -> None:
    named = [b"X-Nominated", b"X-Other", b"Authorization", b"X-Api-Key", b"Cookie",
    b"Content-Length", b"Host",
             b"Transfer-Encoding", b"close", b"keep-alive", b"upgrade", b"", b"x-nominated",
             b"Accept-Encoding"]  # fmt: skip
    options = random.sample(named, random.randint(1, 4))
    separator = random.choice([b",", b", ", b" ,\t", b",,"])
    made.put(random, random.choice([b"Connection: ", b"connection:"]) + separator.join(options))
    made.put(random, random.choice([b"X-Nominated: 1", b"x-nominated: 2", b"X-NOMINATED: 3"]))
    if random.random() < 0.3:
        made.put(random, b"Connection: X-Other, x-nominated")
        made.put(random, b"X-Other: 1")


def _huge(random: Random, made: Draft) -> None:
    choice = random.randint(0, 3)
    if choice == 0:
        made.lines += [b"X-%d: y" % i for i in range(random.choice([50, 90, 99, 150]))]
    elif choice == 1:
        made.put(random, b"X-Big: " + b"b" * random.choice([1000, 30000, 33000, 40000]))
    elif choice == 2:
        made.query = b"q=" + b"c" * random.choice([1000, 7800, 8300])
    else:
        made.path += b"/d" * random.choice([100, 3000, 4200])


def _expects(random: Random, made: Draft) -> None:
    made.put(random, random.choice([
        b"Expect: 100-continue", b"expect: 100-Continue",
        b"Expect: 100-continue\r\nExpect: 100-continue",
        b"Expect: 200-ok", b"Expect: 100-continue, x", b"Expect: ", b"Expect: 100-continue;a",
    ]))  # fmt: skip


def _upgrades(random: Random, made: Draft) -> None:
    made.lines += random.choice([
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
         b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
        [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__"],
        [b"Upgrade: TLS/1.0"], [b"Connection: upgrade"], [b"Sec-WebSocket-Key: x"], [b"upgrade: "],
    ])  # fmt: skip


def _trailers(random: Random, made: Draft) -> None:
    section = b"\r\n".join(random.sample(TRAILERS, 2)) + b"\r\n\r\n"
    declaration = random.choice([b"X: y", *(b"Trailer: " + names for names in DECLARED)])
    body = b"5\r\nhello\r\n0\r\n" + section
    made.framed(b"Transfer-Encoding: chunked", declaration, body=body)


def _tokens(random: Random, made: Draft) -> None:
    made.lines[made.lines.index(SLOTS[made.service])] = random.choice([
        b"Authorization: Bearer", b"Authorization: bearer " + TOKEN,
        b"Authorization: Bearer  " + TOKEN,
        b"Authorization: Bearer " + TOKEN + b"\r\nAuthorization: Bearer mine", b"X-Auth: " + TOKEN,
        b"Authorization: Bearer mine\r\nAuthorization: Bearer " + TOKEN,
        b"Authorization: Token " + TOKEN,
        b"Authorization: Bearer " + TOKEN + b"\r\nX-Copy: " + TOKEN,
        b"authorization:Bearer " + TOKEN + b"  ",
        b"Authorization: Bearer " + TOKEN + b"\r\nCookie: x=" + TOKEN, b"X-Api-Key: " + TOKEN,
        b"Authorization: Bearer " + TOKEN + b"\r\nReferer: https://x.test/?t=" + TOKEN,
    ])  # fmt: skip
    if random.random() < 0.1:
        made.query = b"access_token=" + TOKEN


MUTATIONS: Final[dict[str, tuple[int, Mutation]]] = {
    "valid": (6, _valid),
    "length and chunks": (4, _length_and_chunks),
    "transfer codings": (4, _codings),
    "content lengths": (4, _lengths),
    "chunks": (6, _chunks),
    "line ends": (4, _line_ends),
    "targets": (6, _targets),
    "versions": (2, _versions),
    "methods": (2, _methods),
    "hosts": (3, _hosts),
    "names": (4, _names),
    "values": (3, _values),
    "controlled fields": (5, _controlled),
    "connection": (5, _connection),
    "huge": (2, _huge),
    "expectations": (2, _expects),
    "upgrades": (2, _upgrades),
    "trailers": (2, _trailers),
    "bodies": (5, _bodies),
    "tokens": (3, _tokens),
}
"""What is done to a request, and how often."""
