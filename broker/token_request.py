"""Read what a request to the token endpoint asks for, and refuse what makes no sense.

Three grants, told apart by `grant_type`: token exchange (RFC 8693), JWT bearer (RFC 7523, 2.1)
and client credentials with a client assertion (RFC 7523, 2.2). Beside their parameters the
broker knows `task` (what the agent is doing), `reason` (why it needs this) and `ttl` (how many
seconds the task token should live). Questions about a token, and its revocation, have fewer
parameters (RFC 7662, 2.1; RFC 7009, 2.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.errors import TokenRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_CREDENTIALS: Final = "client_credentials"
GRANT_TYPES: Final = (EXCHANGE, JWT_BEARER, CLIENT_CREDENTIALS)

ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_OIDC: Final = "urn:ietf:params:oauth:token-type:id_token"
_WORKLOAD_TYPES: Final = (_JWT, _OIDC)
_ASSERTION_TYPES: Final = (
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
)

REFUSAL_TIME: Final = 0.05
"""In seconds: a proof that is not accepted is answered after a whole multiple of this, so that
the time the broker took does not tell which issuers and agents it knows."""

REPEATABLE: Final = frozenset({"resource", "audience"})
PARAMETERS: Final = REPEATABLE | {
    "actor_token",
    "actor_token_type",
    "assertion",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "reason",
    "requested_token_type",
    "scope",
    "subject_token",
    "subject_token_type",
    "task",
    "ttl",
}

_QUESTION: Final = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "token",
        "token_type_hint",  # of no use: there is one type of token
    }
)
_REFUSED_PROOF: Final = {
    EXCHANGE: "invalid_request",  # RFC 8693, 2.2.2
    JWT_BEARER: "invalid_grant",  # RFC 7523, 3.1
    CLIENT_CREDENTIALS: "invalid_client",  # RFC 7523, 3.2
}
_MOST_SCOPES: Final = 100
_LONGEST: Final = {"client_id": 255, "task": 200, "reason": 500, "scope": 8192}
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, 3.3
_CLIENT_ID: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749, A.1
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a well-formed request asks for; nothing of it has been verified.

    `proof` is the workload identity's token or, if `delegated`, one of our task tokens, which
    `actor` (a workload identity's token) may narrow for its own use. `targets` are the
    `resource` and `audience` values. `ttl` is in seconds.
    """

    grant_type: str
    proof: str
    delegated: bool
    actor: str | None
    client_id: str | None
    scopes: tuple[str, ...]
    targets: tuple[str, ...]
    task: str | None
    reason: str | None
    ttl: int | None

    @property
    def refused_proof(self) -> str:
        """The error code for a proof that is not accepted."""
        return _REFUSED_PROOF[self.grant_type]

    @property
    def vouches_for_itself(self) -> bool:
        """Whether the proof must be the client's own statement: iss = sub = client_id."""
        return self.grant_type == CLIENT_CREDENTIALS


def read(parameters: Mapping[str, Sequence[str]]) -> TokenRequest:
    """Return what the parameters of a request ask for; unknown parameters are ignored.

    Raises `TokenRefused` for a parameter that is missing, repeated, malformed or out of place,
    and for one that would be known but for its case: a filter in between may have judged it.
    """
    values = _single(parameters, PARAMETERS)
    grant_type = _require(values, "grant_type")
    if grant_type not in GRANT_TYPES:
        raise TokenRefused(
            "unsupported_grant_type", f"grant_type must be one of: {', '.join(GRANT_TYPES)}"
        )
    _refuse_secret(values)
    if grant_type != CLIENT_CREDENTIALS and "client_assertion" in values:
        raise _malformed(
            "client_assertion goes with grant_type=client_credentials; with "
            f"{grant_type} the proof itself says who the client is"
        )
    delegated, actor = False, None
    if grant_type == EXCHANGE:
        proof = _require(values, "subject_token")
        delegated, actor = _exchange_types(values)
    elif grant_type == JWT_BEARER:
        proof = _require(values, "assertion")
    else:
        proof = _client_assertion(values)
    return TokenRequest(
        grant_type=grant_type,
        proof=proof,
        delegated=delegated,
        actor=actor,
        client_id=_text(values, "client_id", must_be=_CLIENT_ID),
        scopes=_scopes(values),
        targets=(
            *(_absolute(resource) for resource in parameters.get("resource", ()) if resource),
            *(audience for audience in parameters.get("audience", ()) if audience),
        ),
        task=_text(values, "task", must_not_hold=_CONTROL),
        reason=_text(values, "reason", must_not_hold=_CONTROL_BUT_LINES),
        ttl=_ttl(values),
    )


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """A well-formed request about `token`: what it is good for, or to revoke it.

    `assertion` is the caller's client assertion, if it sent one; nothing has been verified.
    """

    token: str
    assertion: str | None
    client_id: str | None


def read_question(parameters: Mapping[str, Sequence[str]]) -> TokenQuestion:
    """Return what a request about a token asks; refuses as `read` does."""
    values = _single(parameters, _QUESTION)
    _refuse_secret(values)
    authenticates = {"client_assertion", "client_assertion_type"} & values.keys()
    return TokenQuestion(
        token=_require(values, "token"),
        assertion=_client_assertion(values) if authenticates else None,
        client_id=_text(values, "client_id", must_be=_CLIENT_ID),
    )


def _refuse_secret(values: Mapping[str, str]) -> None:
    if "client_secret" in values:
        raise TokenRefused(
            "invalid_client",
            "this broker has no client secrets; prove the workload's identity instead",
        )


def _single(parameters: Mapping[str, Sequence[str]], known: frozenset[str]) -> dict[str, str]:
    """Return the parameters that may occur once; an empty value is as good as none."""
    values: dict[str, str] = {}
    for name, given in parameters.items():
        if name not in known:
            if name.lower() in known:
                raise _malformed(f"parameter {name!a} is not known; did you mean {name.lower()!r}?")
            continue
        if name in REPEATABLE:
            continue
        if len(given) > 1:
            raise _malformed(f"parameter {name} is given {len(given)} times; give it once")
        if given and given[0]:
            values[name] = given[0]
    return values


def _exchange_types(values: Mapping[str, str]) -> tuple[bool, str | None]:
    """Check the types of a token exchange (RFC 8693, 2.1): is it delegated, and to whom?"""
    requested = values.get("requested_token_type", ACCESS)
    if requested != ACCESS:
        raise _malformed(f"requested_token_type must be {ACCESS}")
    subject_type = _require(values, "subject_token_type")
    if subject_type not in {ACCESS, *_WORKLOAD_TYPES}:
        raise _malformed(
            f"subject_token_type must be {' or '.join(_WORKLOAD_TYPES)} for a workload "
            f"identity, or {ACCESS} for a task token of this broker"
        )
    delegated = subject_type == ACCESS
    actor = values.get("actor_token")
    if (actor is None) != ("actor_token_type" not in values):
        raise _malformed("actor_token and actor_token_type go together: give both or neither")
    if actor is not None:
        if values["actor_token_type"] not in _WORKLOAD_TYPES:
            raise _malformed(f"actor_token_type must be {' or '.join(_WORKLOAD_TYPES)}")
        if not delegated:
            raise _malformed(
                "an actor_token goes with a task token as subject_token; an agent that acts for "
                "itself sends its workload identity as subject_token alone"
            )
    return delegated, actor


def _client_assertion(values: Mapping[str, str]) -> str:
    if _require(values, "client_assertion_type") not in _ASSERTION_TYPES:
        raise _malformed(f"client_assertion_type must be {' or '.join(_ASSERTION_TYPES)}")
    return _require(values, "client_assertion")


def _scopes(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the scopes asked for, each once, in the order given."""
    text = _text(values, "scope")
    scopes = tuple(dict.fromkeys((text or "").split(" ")) if text else ())
    if len(scopes) > _MOST_SCOPES:
        raise TokenRefused("invalid_scope", f"at most {_MOST_SCOPES} scopes can be asked for")
    if not all(_SCOPE_TOKEN.fullmatch(scope) for scope in scopes):
        raise TokenRefused(
            "invalid_scope", "scope must be names of scopes with one space between them"
        )
    return scopes


def _absolute(resource: str) -> str:
    """Refuse a resource that is no absolute URI, or has a fragment (RFC 8707, 2)."""
    try:
        absolute = bool(urlsplit(resource).scheme)
    except ValueError:
        absolute = False
    if not absolute or "#" in resource:
        raise TokenRefused("invalid_target", "resource must be an absolute URI without a fragment")
    return resource


def _ttl(values: Mapping[str, str]) -> int | None:
    text = values.get("ttl")
    if text is None:
        return None
    if not _SECONDS.fullmatch(text):
        raise _malformed("ttl must be a whole number of seconds, 1 or more")
    return int(text)


def _text(
    values: Mapping[str, str],
    name: str,
    *,
    must_be: re.Pattern[str] | None = None,
    must_not_hold: re.Pattern[str] | None = None,
) -> str | None:
    text = values.get(name)
    if text is None:
        return None
    if len(text) > _LONGEST[name]:
        raise _malformed(f"{name} must have at most {_LONGEST[name]} characters")
    if must_be and not must_be.fullmatch(text):
        raise _malformed(f"{name} may hold printable ASCII characters only")
    if must_not_hold and must_not_hold.search(text):
        raise _malformed(f"{name} must not hold control characters")
    return text


def _require(values: Mapping[str, str], name: str) -> str:
    value = values.get(name)
    if value is None:
        raise _malformed(f"parameter {name} is missing")
    return value


def _malformed(message: str) -> TokenRefused:
    return TokenRefused("invalid_request", message, cause="malformed")


def refusal_delay(elapsed: float) -> float:
    """Return how long to wait yet with a refusal that took `elapsed` seconds to find."""
    return (elapsed // REFUSAL_TIME + 1) * REFUSAL_TIME - elapsed
