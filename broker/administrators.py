"""Tell administrators by their tokens.

A token is `atbadm_<id>_<secret>`: a form that scanners of secrets can look for, an id that is no
secret, and 256 random bits. What is kept is its SHA-256, which is enough for a secret that
nobody can guess. An agent's task token is never one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from broker.errors import AdminRefused, InvalidRequest, did_you_mean
from broker.model import AdminToken, Permission
from broker.policy.document import is_name
from providers.base import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.storage.base import AdminTokens

PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)
LONGEST_LIFE: Final = 366 * 86_400
"""Seconds that no token may live for more than."""

MOST_FAILURES: Final = 10
WINDOW: Final = 60.0
"""More failures than `MOST_FAILURES` within this many seconds are answered as too many."""

_FORM: Final = re.compile(rb"atbadm_([0-9a-f]{12})_[0-9a-f]{64}")
_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who changes the policy, and what it may do."""

    name: str
    token: str
    permissions: tuple[Permission, ...]
    expires_at: int

    @property
    def subject(self) -> str:
        """What the audit trail and the policy's history call it."""
        return f"admin:{self.name}"

    def require(self, permission: Permission) -> None:
        """Raise `AdminRefused` if it may not."""
        if permission not in self.permissions:
            raise AdminRefused(
                "forbidden",
                f"this token may {' and '.join(self.permissions)}; {permission} is needed: create "
                f"one with `broker admin token create NAME --can {permission}`",
                detail=f"{self.subject} may not {permission}",
            )


def new_token(
    name: str, permissions: Iterable[str], lifetime: int, *, by: str, now: float
) -> tuple[Secret, AdminToken]:
    """Return a new token, to be shown once, and what is to be kept of it.

    `lifetime` is in seconds. Raise `InvalidRequest` for what cannot be granted.
    """
    if not is_name(name):
        raise InvalidRequest(
            "the name of a token has up to 64 lower-case letters, digits, '.', '_' and '-', with "
            "a letter or digit at both ends",
            field="name",
        )
    granted = tuple(dict.fromkeys(permissions))
    for one in granted:
        if one not in PERMISSIONS:
            near = did_you_mean(one, PERMISSIONS) or f"; there are {', '.join(PERMISSIONS)}"
            raise InvalidRequest(f"there is no permission {one[:80]!r}{near}", field="can")
    if not granted:
        raise InvalidRequest("a token must be able to do something", field="can")
    if not 0 < lifetime <= LONGEST_LIFE:
        raise InvalidRequest(
            f"a token expires within {LONGEST_LIFE // 86_400} days", field="expires"
        )
    token_id = secrets.token_hex(6)
    token = f"atbadm_{token_id}_{secrets.token_hex(32)}".encode()
    moment = int(now)
    known = tuple(one for one in PERMISSIONS if one in granted)
    kept = AdminToken(token_id, name, _digest(token), known, moment, by, moment + lifetime)
    return Secret(token), kept


class Administrators:
    """Authenticate administrators against the tokens that the store keeps.

    Failures are counted together, whatever name or address they come with, so that no variation
    gains tries; a good token is let in all the same.
    """

    def __init__(
        self,
        tokens: AdminTokens,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens: Final = tokens
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._failures: Final[deque[float]] = deque(maxlen=MOST_FAILURES)

    async def authenticate(self, presented: bytes | None) -> Administrator:
        """Return whose token this is; raise `AdminRefused`, whose answer never says what is wrong.

        Raise `StorageError` if that cannot be known.
        """
        match = _FORM.fullmatch(presented or b"")
        kept = await self._tokens.find(match[1].decode()) if match else None
        expected = kept.digest if kept is not None else _NO_DIGEST
        genuine = hmac.compare_digest(_digest(presented or b""), expected)
        if kept is None or not genuine or not kept.is_good(self._clock()):
            raise self._refusal(_cause(presented, kept, genuine=genuine, formed=match is not None))
        return Administrator(kept.name, kept.id, kept.permissions, kept.expires_at)

    def _refusal(self, cause: str) -> AdminRefused:
        now = self._monotonic()
        too_many = len(self._failures) == MOST_FAILURES and now - self._failures[0] < WINDOW
        self._failures.append(now)
        if too_many:
            return AdminRefused(
                "too_many_failures",
                f"more than {MOST_FAILURES} requests without a good token; wait a minute",
                detail=cause,
            )
        return AdminRefused(
            "unauthorized",
            "an administrator's token is needed, as `Authorization: Bearer atbadm_...`; create "
            "one with `broker admin token create`",
            detail=cause,
        )


def _cause(presented: bytes | None, kept: AdminToken | None, *, genuine: bool, formed: bool) -> str:
    if presented is None:
        return "no token"
    if not formed:
        return "not an administrator's token"
    if kept is None:
        return "no such token"
    if not genuine:
        return f"wrong secret for token {kept.id} ({kept.name})"
    state = "revoked" if kept.revoked_at is not None else "expired"
    return f"token {kept.id} ({kept.name}) is {state}"


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
