"""The policy that the differential test puts before its services, and what it means, plainly."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import unquote

from tests.fakes.gateway import AGENT
from tests.fakes.rule_model import is_meant

CREDENTIALS: Final = {
    "api": '{type: bearer, secret: "env:api"}',
    "based": '{type: bearer, secret: "env:based"}',
    "keyed": '{type: header, name: X-Api-Key, secret: "env:keyed"}',
    "basic": '{type: basic, username: account, secret: "env:basic"}',
    "query": '{type: query, name: api_key, secret: "env:query"}',
    "cookie": '{type: cookie, name: session, secret: "env:cookie"}',
    "judged": '{type: bearer, secret: "env:judged"}',
}
KEYS: Final = {f"env:{name}": f"canary-key-of-{name}".encode() for name in CREDENTIALS}
SCOPES: Final = tuple(f"{name}.use" for name in CREDENTIALS)

ALLOW: Final = (
    *("GET /v1/**", "HEAD /v1/**", "POST /v1/**", "PATCH /v1/**"),
    *("PUT /v1/items/*", "DELETE /v1/items/*", "M-SEARCH /v1/*"),
)
JUDGED: Final = "judged"
"""The service of whose requests the body is judged; a safe one needs none."""

DENY: Final = ("* /v1/admin/**", "* /v1/**/secret", "HEAD /v1/items/**")


_BODY: Final = ", body: {json: {amount: {max: 5000}, note: {any: true}}, max_bytes: 400}"


def base_path(service: str) -> bytes:
    """Where a service is at the upstream: each elsewhere, so that its requests are known."""
    return b"/at/" + service.encode()


def policy_text() -> str:
    """The policy; services are at PORT."""
    services = (
        f"  {name}: {{provider: http_api, credential: {credential}, insecure_http: true, "
        f"base_url: http://127.0.0.1:PORT{base_path(name).decode()}, allow_private: true}}"
        for name, credential in CREDENTIALS.items()
    )
    allow, deny = (", ".join(f'"{rule}"' for rule in rules) for rules in (ALLOW, DENY))
    scopes = (
        f"  {name}.use: {{service: {name}, allow: [{allow}], deny: [{deny}]"
        f"{_BODY if name == JUDGED else ''}}}"
        for name in CREDENTIALS
    )
    return "\n".join(
        [
            "identity_sources: {laptop: {type: local}}",
            "services:",
            *services,
            "scopes:",
            *scopes,
            "agents:",
            f"  {AGENT}:",
            f"    trust: [{{source: laptop, claims: {{sub: {AGENT}}}}}]",
            f"    scopes: [{', '.join(SCOPES)}]",
        ]
    )


def _matches(rules: tuple[str, ...], method: str, segments: list[str]) -> bool:
    return any(
        rule.split(" ")[0] in {"*", method} and is_meant(rule.split(" /")[1].split("/"), segments)
        for rule in rules
    )


def is_allowed(method: str, path: str) -> bool:
    """Tell whether the policy means to allow this; `path` is the raw one.

    Whoever normalises it may not come to anything that is denied: it is looked at decoded, in
    small letters and without its trailing slash, too.
    """
    raw = path[1:].split("/")
    plain = unquote(path).casefold().rstrip("/")[1:].split("/")
    if not path.startswith("/") or any(one in {".", "..", ""} for one in plain):
        return False
    denied = _matches(DENY, method, raw) or _matches(DENY, method, plain)
    return _matches(ALLOW, method, raw) and not denied


def body_problem(body: bytes) -> str | None:
    """Return what is wrong with a body that the policy lets through, as plainly as can be."""
    pairs: list[list[str]] = []

    def members(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append([name for name, _ in found])
        return dict(found)

    try:
        value = json.loads(body, object_pairs_hook=members)
    except ValueError as error:
        return f"it is no JSON: {error}"
    if not isinstance(value, dict) or not {"amount"} <= set(value) <= {"amount", "note"}:
        return "it holds something else"
    if any(len(set(names)) != len(names) for names in pairs):
        return "it names something twice"
    if isinstance(value["amount"], bool) or not 0 <= value["amount"] <= 5000:
        return "it asks for too much"
    return None if len(body) <= 400 else "it is too long"
