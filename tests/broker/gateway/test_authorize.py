from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, replace
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from broker.gateway.authorize import Admission, Authorization, Pending, Rejection
from broker.gateway.base import Resource
from broker.gateway.limits import GatewayLimits
from broker.gateway.request import Request, RequestReader
from broker.model import Grant
from tests.fakes.gateway import (
    ALL,
    GATEWAY,
    ISSUER,
    behalf_policy,
    policy,
    policy_text,
    socket_policy,
)

if TYPE_CHECKING:
    from broker.policy.engine import Policy
    from providers.base import Injection

GOOD = b"eyJ.good.token"


@dataclass
class Words:
    """An authority that knows one token."""

    current: Policy
    known: Grant

    def grant(self, token: bytes, digest: bytes, *, again: bool = False) -> Grant | str:  # noqa: ARG002
        assert digest == sha256(token).digest()
        return self.known if token == GOOD else "expired"

    def policy(self) -> Policy:
        return self.current

    async def injection(self, *asked: Any) -> Injection:
        raise NotImplementedError(asked)


@pytest.fixture
def authority() -> Words:
    current = policy(policy_text(), 8080)
    grant = Grant("jti", "tester", "local", "tester", ALL, 0, 0, current.version, "tester")
    return Words(current, grant)


def decide(
    authority: Words, target: bytes, *lines: bytes, method: bytes = b"GET", token: bytes = GOOD
) -> Admission | Rejection | Pending:
    auth = [b"Authorization: Bearer " + token] if token else []
    first = b"%b %b HTTP/1.1" % (method, target)
    head = b"\r\n".join([first, b"Host: g", *auth, *lines, b"", b""])
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    return Authorization(authority, Resource(GATEWAY, ISSUER)).decide(request)


def refused(verdict: Admission | Rejection | Pending) -> Rejection:
    assert isinstance(verdict, Rejection)
    return verdict


def test_an_admission_says_by_what_right(authority: Words) -> None:
    verdict = decide(authority, b"/api/v1/x?y")
    assert isinstance(verdict, Admission)
    assert verdict.path == b"/v1/x"
    assert verdict.grant is authority.known
    assert (verdict.decision.scope, verdict.decision.rule) == ("api.all", "* /**")
    assert verdict.route.service.name == "api"


@pytest.mark.parametrize(
    ("target", "token", "code", "service"),
    [
        (b"/api/v1/x", b"", "token_missing", None),
        (b"/api/v1/x?access_token=eyJ.good.token", b"", "token_missing", None),
        (b"/nothing/x", b"", "token_missing", None),
        (b"/api/v1/x", b"eyJ.bad.token", "token_invalid", None),
        (b"/nothing/x", b"eyJ.bad.token", "token_invalid", None),
        (b"/nothing/x", GOOD, "service_unknown", None),
        (b"/", GOOD, "service_unknown", None),
        (b"/API/x", GOOD, "service_unknown", None),
        (b"//api/x", GOOD, "service_unknown", None),
        (b"/%61pi/x", GOOD, "service_unknown", None),
        (b"/./api/x", GOOD, "service_unknown", None),
        (b"/api", GOOD, "path_not_canonical", "api"),
        (b"/api/a//b", GOOD, "path_not_canonical", "api"),
        (b"/api/a/../b", GOOD, "path_not_canonical", "api"),
        (b"/api/x/https://evil.test/", GOOD, "path_not_canonical", "api"),
        (b"/api/admin/x", GOOD, "policy_denied", "api"),
        (b"/api/v1/" + GOOD, GOOD, "token_misplaced", "api"),
        (b"/api/v1/x?a=" + GOOD, GOOD, "token_misplaced", "api"),
    ],
)
def test_rejections(
    authority: Words, target: bytes, token: bytes, code: str, service: str | None
) -> None:
    verdict = refused(decide(authority, target, token=token))
    assert (verdict.refusal.code, verdict.service) == (code, service)


def test_the_agent_is_known_once_its_token_is(authority: Words) -> None:
    assert refused(decide(authority, b"/nothing/x")).grant is authority.known
    assert refused(decide(authority, b"/api/x", token=b"eyJ.bad.token")).grant is None


HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_upgrades_are_refused(authority: Words, upgrade: bytes) -> None:
    lines = (HANDSHAKE[0], b"Upgrade: " + upgrade, *HANDSHAKE[2:])
    refusal = refused(decide(authority, b"/api/x", *lines)).refusal
    assert refusal.code == "upgrade_refused"


def test_websockets_need_a_scope_that_says_so(authority: Words) -> None:
    authority.current = policy(socket_policy(), 1)
    authority.known = replace(authority.known, scopes=("api.read",))
    refusal = refused(decide(authority, b"/api/v1/x", *HANDSHAKE)).refusal
    assert refusal.code == "upgrade_refused"
    assert refusal.remedy == f"ask {ISSUER}/token for a task token with the scope api.all"
    elsewhere = refused(decide(authority, b"/keyed/v1/x", *HANDSHAKE)).refusal
    assert elsewhere.remedy is not None
    assert "websocket: true" in elsewhere.remedy
    authority.known = replace(authority.known, scopes=("api.read", "api.all"))
    admitted = decide(authority, b"/api/v1/x", *HANDSHAKE)
    assert isinstance(admitted, Admission)
    # Whatever goes through it is judged by nobody: it is neither safe nor of low risk.
    assert (admitted.decision.scope, admitted.decision.risk) == ("api.all", "medium")
    assert not admitted.safe
    assert admitted.handshake is not None
    plain = decide(authority, b"/api/v1/x")
    assert isinstance(plain, Admission)
    assert (plain.safe, plain.handshake, plain.decision.risk) == (True, None, "low")


@pytest.mark.parametrize("scope", ["api.all"])
def test_deny_rules_and_methods_bind_websockets_too(authority: Words, scope: str) -> None:
    authority.current = policy(socket_policy(), 1)
    authority.known = replace(authority.known, scopes=(scope,))
    denied = refused(decide(authority, b"/api/admin/x", *HANDSHAKE)).refusal
    assert denied.code == "upgrade_refused"
    posted = refused(decide(authority, b"/api/x", *HANDSHAKE, method=b"POST")).refusal
    assert posted.code == "malformed_request"
    dots = refused(decide(authority, b"/api/a/../x", *HANDSHAKE)).refusal
    assert dots.code == "path_not_canonical"
    old = (*HANDSHAKE[:2], b"Sec-WebSocket-Version: 8", HANDSHAKE[3])
    assert refused(decide(authority, b"/api/x", *old)).refusal.code == "websocket_version_refused"


OTHER = (b"Impersonate-User: root", b"X-Tenant: a")


def test_to_name_another_takes_a_scope_that_lists_it(authority: Words) -> None:
    authority.known = replace(authority.known, scopes=("api.read",))
    refusal = refused(decide(authority, b"/api/v1/x", *OTHER)).refusal
    assert (refusal.code, refusal.rule, refusal.scopes) == ("policy_denied", "on_behalf", ())
    assert "impersonate-user names another" in refusal.detail
    authority.current = policy(behalf_policy(), 1)
    refusal = refused(decide(authority, b"/api/v1/x", *OTHER)).refusal
    assert refusal.scopes == ("api.all",)
    assert refusal.remedy == f"ask {ISSUER}/token for a task token with the scope api.all"
    authority.known = replace(authority.known, scopes=("api.read", "api.all"))
    admitted = decide(authority, b"/api/v1/x", *OTHER)
    assert isinstance(admitted, Admission)
    assert admitted.decision.scope == "api.all"


def test_a_scope_that_lists_a_tenant_is_of_no_use_without(authority: Words) -> None:
    authority.current = policy(behalf_policy(), 1)
    authority.known = replace(authority.known, scopes=("api.all",))
    refusal = refused(decide(authority, b"/api/v1/x", OTHER[0])).refusal
    assert refusal.detail == "x-tenant is missing, under on_behalf"
    assert refused(decide(authority, b"/keyed/v1/x", OTHER[0])).refusal.code == "policy_denied"


def test_second_places_are_judged_on_the_same_behalf(authority: Words) -> None:
    """What api.read allows is no place for a request that only api.all lets name another."""
    text = behalf_policy().replace('allow: ["* /**"], deny', 'allow: ["* /o/**"], deny', 1)
    authority.current = policy(text.replace("PORT", "80"), 1)
    authority.known = replace(authority.known, scopes=("api.read", "api.all"))
    for place, fine in ((b"/o/y", True), (b"/v1/y", False)):
        source = b"x-ms-copy-source: http://127.0.0.1" + place
        verdict = decide(authority, b"/api/o/x", *OTHER, source, method=b"PUT")
        assert isinstance(verdict, Admission) is fine


def test_a_token_beside_its_slot_is_refused(authority: Words) -> None:
    verdict = refused(decide(authority, b"/api/x", b"X-Debug: " + GOOD))
    assert verdict.refusal.code == "token_misplaced"


def test_a_denial_says_what_would_be_allowed_and_how_to_get_it(authority: Words) -> None:
    authority.known = replace(authority.known, scopes=("api.read",))
    refusal = refused(decide(authority, b"/api/v1/x", method=b"POST")).refusal
    assert refusal.allowed == ("GET /v1/**",)
    assert refusal.scopes == ("api.all",)
    assert refusal.remedy == f"ask {ISSUER}/token for a task token with the scope api.all"


def test_a_denial_that_no_scope_would_change_says_so(authority: Words) -> None:
    refusal = refused(decide(authority, b"/api/admin/x")).refusal
    assert refusal.rule == "* /admin/**"
    assert refusal.scopes == ()
    assert refusal.remedy is not None
    assert "broker policy explain --agent tester" in refusal.remedy


def test_scopes_of_other_services_do_not_help(authority: Words) -> None:
    authority.known = replace(authority.known, scopes=("keyed.all",))
    refusal = refused(decide(authority, b"/api/v1/x")).refusal
    assert refusal.code == "policy_denied"
    assert refusal.scopes == ("api.all", "api.read")


def test_an_unknown_service_is_told_with_those_there_are(authority: Words) -> None:
    authority.known = replace(authority.known, scopes=("keyed.all", "api.read"))
    refusal = refused(decide(authority, b"/stripe/x")).refusal
    assert refusal.remedy == (
        f"call {GATEWAY}/<service>/<path>; the services of this task token: api, keyed"
    )


def test_plain_http_is_refused_as_a_service(authority: Words) -> None:
    service = authority.current.services["api"]
    assert service.upstream is not None
    bare = replace(service, upstream=replace(service.upstream, insecure_http=False))

    current = authority.current
    authority.current = SimpleNamespace(  # type: ignore[assignment]
        version="other",
        services={"api": bare},
        scopes=current.scopes,
        agents=current.agents,
        authorizer=current.authorizer,
        behalf=current.behalf,
    )
    assert refused(decide(authority, b"/api/v1/x")).refusal.code == "credential_refused"


def test_nothing_shows_the_task_token(authority: Words) -> None:
    assert GOOD.decode() not in repr(decide(authority, b"/api/v1/x"))


def test_a_repeated_request_is_judged_by_what_holds_now(authority: Words) -> None:
    head = b"GET /api/v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer %b\r\n\r\n" % GOOD
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    authorization = Authorization(authority, Resource(GATEWAY, ISSUER))
    first = authorization.decide(request)
    assert authorization.decide(request) is first
    authority.known = replace(authority.known, scopes=("keyed.all",))
    assert refused(authorization.decide(request)).refusal.code == "policy_denied"
    authority.known = replace(authority.known, scopes=("api.read",))
    narrowed = authorization.decide(request)
    assert isinstance(narrowed, Admission)
    assert narrowed.decision.scope == "api.read"
    authority.known = "revoked"  # type: ignore[assignment]
    assert refused(authorization.decide(request)).refusal.code == "token_invalid"


def test_a_new_policy_counts_from_the_next_request(authority: Words) -> None:
    head = b"GET /api/v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer %b\r\n\r\n" % GOOD
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    authorization = Authorization(authority, Resource(GATEWAY, ISSUER))
    assert isinstance(authorization.decide(request), Admission)
    text = policy_text().replace(
        'api.all: {service: api, allow: ["* /**"]', 'api.all: {service: api, allow: ["* /v9/**"]'
    )
    authority.current = policy(text, 8080)
    assert refused(authorization.decide(request)).refusal.code == "policy_denied"


def test_nothing_of_an_earlier_policy_is_kept_for_a_connection(authority: Words) -> None:
    head = b"GET /api/v1/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer %b\r\n\r\n" % GOOD
    request = RequestReader(GatewayLimits()).read(head)
    assert isinstance(request, Request)
    authorization = Authorization(authority, Resource(GATEWAY, ISSUER))
    earlier = []
    for _ in range(3):
        assert isinstance(authorization.decide(request), Admission)
        earlier.append(weakref.ref(authority.current))
        authority.current = policy(policy_text(), 8080)
    assert isinstance(authorization.decide(request), Admission)
    gc.collect()
    assert [one() for one in earlier] == [None, None, None]
