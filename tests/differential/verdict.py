"""Hold what upstreams read against what policy judged: nothing more, nothing else, not twice."""

from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes
from zlib import crc32

from broker.audit.redaction import redact_path
from tests.differential.cases import LAST
from tests.differential.corpus import CONTROLLED
from tests.differential.policy import CREDENTIALS, JUDGED, KEYS, body_problem, is_allowed
from tests.differential.readers import BAD_REQUEST, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from broker.model import AuditRecord
    from tests.differential.cases import Case
    from tests.differential.readers import Logged, Seen

_TAG: Final = re.compile(rb"/(c([0-9a-f]+)\.([0-9a-f]+))\.([0-9a-f]{3})(?=[/?]|\Z)")
_PREFIX: Final = re.compile(rb"/at/([a-z]+)(/.*)", re.DOTALL)
_NEVER: Final = {name.lower() for name in CONTROLLED} | {b"x-forwarded-"}
_NOMINATION: Final = re.compile(
    # as one whole option: what else stands between two commas names nothing (RFC 9110, 7.6.1)
    rb"(?im)^connection[ \t]*:(?:[^\r\n]*,)?[ \t]*x-nominated[ \t]*(?:,|\r?$)"
)

_ONCE: Final = (
    *(b"content-type", b"if-match", b"if-modified-since", b"if-none-match", b"if-range"),
    *(b"if-unmodified-since", b"range", b"referer", b"user-agent"),
)
"""Fields that nginx refuses with 400 if there are two; the agent may send what it likes there."""

_WRITTEN: Final = {
    *((b"transfer-encoding", b"chunked"), (b"accept-encoding", b"identity")),
    *((b"te", b"trailers"), (b"connection", b"TE")),
}
"""Fields that the gateway writes of its own accord."""

_NO_TRAILERS: Final = {b"content-length", b"transfer-encoding", b"host", b"cookie"}

_LONG: Final = 200
"""The trail cuts what is longer than it keeps, and puts a digest of the whole there."""

Asked = tuple[str, bytes, str]
"""A service, a method, and a path as the trail keeps it."""


@dataclass
class Findings:
    """What is wrong, each with the case it comes from, if that is known."""

    found: list[tuple[str, int | None]] = field(default_factory=list)
    admitted: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    requests: int = 0
    untraced: int = 0

    def add(self, text: str, number: int | None = None) -> None:
        """Keep one."""
        self.found.append((text, number))


def traced(target: bytes) -> tuple[int, int] | None:
    """Return the numbers of the case and of its request that a target names."""
    match = _TAG.search(target)
    if match is None or crc32(match[1]) & 0xFFF != int(match[4], 16):
        return None
    return int(match[2], 16), int(match[3], 16)


def compare_readers(
    findings: Findings,
    seen: Sequence[Seen],
    others: Sequence[Seen],
    logged: Sequence[Logged],
) -> None:
    """All three read the same requests in one stream; of the last of them maybe a part."""
    for one, other in zip(seen, others, strict=False):
        same = (one.method, one.target, one.headers, one.complete)
        if same != (other.method, other.target, other.headers, other.complete) or (
            one.complete and (one.body, one.trailers) != (other.body, other.trailers)
        ):
            findings.add(f"httptools reads {one}, h11 {other}", number_of(one.target))
    if len(seen) != len(others):
        findings.add(f"httptools reads {len(seen)} requests, h11 {len(others)}", _last(seen))
    for one, log in zip(seen, logged, strict=False):
        _compare_with_nginx(findings, one, log)
    complete = [one for one in seen if one.complete]
    if len(logged) < len(complete) or len(logged) > len(seen):
        text = f"httptools reads {len(complete)} whole requests of {len(seen)}, nginx {len(logged)}"
        findings.add(text, _last(seen))
    if len(complete) < len(seen) - 1:
        findings.add("a request begins before the one before it is complete", _last(seen))


def _compare_with_nginx(findings: Findings, one: Seen, log: Logged) -> None:
    number = number_of(one.target)
    if (one.method, one.target) != (log.method, log.target):
        findings.add(f"httptools reads {one.method!r} {one.target!r}, nginx {log}", number)
    elif log.status == BAD_REQUEST and one.complete and _has_twins_nginx_refuses(one):
        return
    elif one.complete and (one.body != log.body or log.status != 204):
        findings.add(f"httptools reads a body of {len(one.body)} bytes, nginx {log}", number)
    for name in NAMES:
        key = name.encode()
        values = [value for other, value in one.headers if other.replace(b"_", b"-") == key]
        joined = (b"; " if name == "cookie" else b", ").join(values)
        # Before its release 1.23 nginx had but the first of several for most names.
        if log.fields[name] not in {joined, values[0] if values else b""}:
            findings.add(f"{name}: httptools reads {values}, nginx {log.fields[name]!r}", number)


def _has_twins_nginx_refuses(one: Seen) -> bool:
    names = Counter(name.replace(b"_", b"-") for name, _ in one.headers)
    return any(names[name] > 1 for name in _ONCE)


def number_of(target: bytes) -> int | None:
    """Return the number of the case that a target names."""
    found = traced(target)
    return found[0] if found else None


def _last(seen: Sequence[Seen]) -> int | None:
    return number_of(seen[-1].target) if seen else None


def judge_requests(
    findings: Findings, seen: Sequence[Seen], cases: Mapping[int, tuple[Case, bytes]]
) -> Counter[Asked]:
    """Look at each request by itself; return which were asked for.

    `cases` are those of the run by number, with the bytes that were sent.
    """
    asked: Counter[Asked] = Counter()
    repeated: Counter[bytes] = Counter()
    for one in seen:
        findings.requests += 1
        number = number_of(one.target)
        match = _PREFIX.fullmatch(one.target)
        service = match[1].decode() if match else ""
        if match is None or service not in CREDENTIALS:
            findings.add(f"no service is at {one.target!r}", number)
            continue
        path = match[2].partition(b"?")[0]
        if not is_allowed(one.method.decode(), path.decode("latin-1")):
            findings.add(f"policy does not allow {one.method!r} {path!r}", number)
        for problem in _header_problems(one, service):
            findings.add(problem, number)
        if service == JUDGED:
            for problem in _judged_problems(one):
                findings.add(problem, number)
        repeated[one.target] += 1
        _trace(findings, one, (service.encode(), match[2]), (cases, repeated[one.target]))
        target = path if service == "query" else match[2]
        asked[service, one.method, redact_path(target)[:_LONG]] += 1
    return asked


def _header_problems(one: Seen, service: str) -> Iterator[str]:
    twins = Counter(name.replace(b"_", b"-") for name, _ in one.headers)
    takes_trailers = one.all(b"te") == [b"trailers"] and one.all(b"connection") == [b"TE"]
    for name in twins:
        ours = name == b"trailer" or (takes_trailers and name in {b"te", b"connection"})
        if not ours and (name in _NEVER or name.startswith(b"x-forwarded-")):
            yield f"{name!r} is sent on"
    declared = {one.strip(b" ") for value in one.all(b"trailer") for one in value.split(b",")}
    unfit = _NEVER | _NO_TRAILERS | _credential(service).keys()
    for name in {*declared, *(name for name, _ in one.trailers)}:
        if name not in declared or name.replace(b"_", b"-") in unfit:
            yield f"{name!r} is sent on as a trailer"
    if twins[b"host"] != 1 or not re.fullmatch(rb"127\.0\.0\.1:[0-9]+", one.all(b"host")[0]):
        yield f"Host is {one.all(b'host')}"
    framing = [*one.all(b"content-length"), *one.all(b"transfer-encoding")]
    if len(framing) > 1 or twins[b"content-length"] + twins[b"transfer-encoding"] != len(framing):
        yield f"it is framed by {framing}"
    for slot, expected in _credential(service).items():
        if _in_slot(one, slot) != expected:
            yield f"{slot!r} does not hold the service's credential alone"


def _judged_problems(one: Seen) -> Iterator[str]:
    """Look at a request whose body policy has judged: it is whole, and can be read in one way."""
    has_body = bool(one.body) or one.all(b"content-length") not in ([], [b"0"])
    if has_body or one.method not in {b"GET", b"HEAD", b"OPTIONS"}:
        problem = body_problem(one.body) if one.complete else None
        if problem is not None:
            yield f"a body was let through that policy refuses: {problem}"
        twins = [name.replace(b"_", b"-") for name, _ in one.headers]
        types = [value.lower() for value in one.all(b"content-type")]
        known = types in ([b"application/json"], [b"application/json; charset=utf-8"])
        if not known or twins.count(b"content-type") != 1 or b"content-encoding" in twins:
            yield f"its Content-Type is {types}"
        if one.all(b"transfer-encoding") or one.trailers or one.all(b"trailer"):
            yield "a judged body is not framed by its length alone"
    if one.target.partition(b"?")[2]:
        yield "it has a query that nobody judged"


def _credential(service: str) -> dict[bytes, list[bytes]]:
    """Return what must stand in the places where a service could look for a credential."""
    key = KEYS[f"env:{service}"]
    basic = b"Basic " + base64.b64encode(b"account:" + key)
    own = {
        "keyed": {b"authorization": [], b"x-api-key": [key]},
        "basic": {b"authorization": [basic]},
        "query": {b"authorization": [], b"?api_key": [key]},
        "cookie": {b"authorization": [], b"session": [key]},
    }.get(service, {b"authorization": [b"Bearer " + key]})
    return {b"x-api-key": [], b"?api_key": [], **own}


def _in_slot(one: Seen, slot: bytes) -> list[bytes]:
    if slot == b"session":
        pairs = [pair.strip(b" \t") for value in one.all(b"cookie") for pair in value.split(b";")]
        return [pair[8:] for pair in pairs if pair.startswith(b"session=")]
    if slot == b"?api_key":
        parameters = one.target.partition(b"?")[2].split(b"&")
        return [part[8:] for part in parameters if part.startswith(b"api_key=")]
    return [value for name, value in one.headers if name.replace(b"_", b"-") == slot]


def _stands(sent: bytes, target: bytes) -> int:
    """Return how often a target stands in what was sent, but for keys of the agent's own."""
    whole = re.escape(target.partition(b"?")[0]) + rb"(?:\?[^ \r\n]*)?"
    found = re.findall(rb"(?=(%b))" % whole, sent)
    return sum(_without_own_keys(one).startswith(target) for one in found)


def _without_own_keys(target: bytes) -> bytes:
    """Return a target as it is sent on: without parameters that may pass for a key."""
    path, _, query = target.partition(b"?")
    if not query:
        return target
    kept = [part for part in query.split(b"&") if not any(map(_is_key, part.split(b";")))]
    return b"?".join(filter(None, (path, b"&".join(kept))))


def _is_key(parameter: bytes) -> bool:
    name = unquote_to_bytes(parameter.partition(b"=")[0].replace(b"+", b" ")).lower()
    name = re.split(rb"[\[\0]", name)[0].strip()
    return re.sub(rb"[ .-]", b"_", name) in {b"access_token", b"api_key", b"apikey"}


def _trace(
    findings: Findings,
    one: Seen,
    asked: tuple[bytes, bytes],
    known: tuple[Mapping[int, tuple[Case, bytes]], int],
) -> None:
    """Find the request in the bytes of its case, as it is."""
    numbers = traced(one.target)
    cases, times = known
    if numbers is None or numbers[0] not in cases:
        findings.untraced += 1
        return
    number, index = numbers
    (findings.ended if index == LAST else findings.admitted).add(number)
    sent = cases[number][1]
    service, target = asked
    path = target.partition(b"?")[0] if service == b"query" else target
    if _stands(sent, b"/" + service + path) < times:
        findings.add(
            f"{target!r} is sent on {times} times, and stands in its case less often", number
        )
    for name, value in (*one.headers, *one.trailers):
        if value and value not in sent and not _is_ours(name, value):
            findings.add(f"the value of {name!r} does not stand in its case", number)
    alone = sent.count(b" HTTP/1.1") == 1 and sent.count(b"\r\n\r\n") == 1
    if alone and one.all(b"x-nominated") and _NOMINATION.search(sent):
        findings.add("a field that Connection names is sent on", number)


def _is_ours(name: bytes, value: bytes) -> bool:
    if name in {b"host", b"authorization", b"x-api-key", b"cookie", b"content-length", b"trailer"}:
        return True  # these are judged by themselves
    return (name, value) in _WRITTEN or (name == b"via" and value.startswith(b"1.1 broker-"))


def hold_against_trail(
    findings: Findings, asked: Counter[Asked], records: Sequence[AuditRecord]
) -> Counter[str]:
    """One intent for each request that was sent on, and one request for each that succeeded.

    An outcome without an intent before it says both: the answer came before the intent was written.
    Return how often each refusal was given, by its word.
    """
    intents: Counter[Asked] = Counter()
    done: Counter[Asked] = Counter()
    refusals: Counter[str] = Counter()
    intended: set[str] = set()
    for record in records:
        service, path = record.service or "", record.path or ""
        if service == "query":
            path = path.partition("?")[0]
        path = _without_own_keys(path.encode()).decode()  # the trail has what was asked for
        key = (service, (record.method or "").encode(), path[:_LONG])
        if record.phase == "intent":
            intents[key] += 1
            intended.add(record.operation)
        elif record.decision == "allow":
            done[key] += 1
            intents[key] += record.operation not in intended
        else:
            refusals[(record.detail or "").partition(":")[0]] += 1
    for key, count in (asked - intents).items():
        findings.add(f"{count} more of {key} than the trail has intents for", _of(key))
    for key, count in (done - asked).items():
        findings.add(f"{count} more of {key} in the trail than the upstream saw", _of(key))
    return refusals


def _of(key: Asked) -> int | None:
    return number_of(key[2].encode())
