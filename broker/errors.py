"""Every error the broker raises.

    BrokerError
    |-- ConfigurationError      a setting, file or mode that a person must mend
    |   `-- PolicyError         one or more problems in policy documents, each with its place
    |-- InvalidRequest          the caller's request is malformed
    |-- PolicyConflict          the policy is not what a change to it supposes
    |-- AdminRefused            somebody who is no administrator, or not one who may
    |-- InvalidToken            a token or assertion was refused
    |-- TokenRefused            a request for a task token was refused, in OAuth's words
    |-- CredentialRefused       a request for a minted credential was refused
    |   `-- TooManyCredentials  by a limit of the policy that is reached
    |-- UpstreamError           something the broker depends on refused or failed
    |   |-- IssuerUnavailable   an issuer's discovery document or keys could not be had
    |   |-- SecretUnavailable   a secret could not be read
    |   `-- CredentialUnavailable   a provider could not mint a credential
    |-- StorageError            durable records could not be read or written
    |   `-- LimitsUnavailable   requests cannot be counted, so none that has limits may pass
    `-- AuditUnavailable        the trail cannot record, so nothing may happen

Texts are for the person who must fix the cause and never hold a secret. HTTP statuses are
chosen in `broker.api` and `broker.gateway` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class BrokerError(Exception):
    """Base of every error the broker raises on purpose."""


class ConfigurationError(BrokerError):
    """A setting, file or file mode that a person must mend before the broker can work."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy document; line and column count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyError(ConfigurationError):
    """Policy documents that do not load: all their problems at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class InvalidRequest(BrokerError):
    """A malformed request; `field` names the parameter at fault, where there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class PolicyConflict(BrokerError):
    """A change to the policy that supposes of it what is not so; nothing was changed.

    `code` is a stable word: `exists`, `absent`, `changed`, `in_file` or `busy`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AdminRefused(BrokerError):
    """A request to the admin API that was refused for who sent it.

    `code` is a stable word: `unauthorized`, `too_many_failures` or `forbidden`; `detail` is for
    the audit trail alone.
    """

    def __init__(self, code: str, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class InvalidToken(BrokerError):
    """A token or assertion that was refused.

    `code` is a stable word for the audit trail (`expired`, `bad_signature`, ...). What the
    caller is told is chosen elsewhere, so that it does not say which check failed.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TokenRefused(BrokerError):
    """A request for a task token that was refused.

    `error` is the code that the caller gets (RFC 6749, 5.2; RFC 8693, 2.2.2), the message its
    description; `cause` is a stable word for the audit trail, and `detail` says there what the
    caller is not told. `operation` is that record's own, once it is written. `retry_after` is
    for a limit that is reached: in how many seconds to ask again.
    """

    def __init__(
        self,
        error: str,
        message: str,
        *,
        cause: str | None = None,
        detail: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.error = error
        self.cause = cause or error
        self.detail = detail
        self.operation: str | None = None


class CredentialRefused(BrokerError):
    """A request for a minted credential that was refused.

    `code` is a stable word; `rule` is what denied it and `allowed` what could be had instead,
    as a `Deny` has them. `operation` names the record in the audit trail, once it is written.
    """

    def __init__(
        self, code: str, message: str, *, rule: str | None = None, allowed: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.rule = rule
        self.allowed = allowed
        self.operation: str | None = None


class TooManyCredentials(CredentialRefused):
    """A request for a minted credential that `limit` refuses for `retry_after` seconds."""

    def __init__(self, limit: str, retry_after: int) -> None:
        super().__init__("limit_exceeded", f"the limit is reached: {limit}")
        self.limit = limit
        self.retry_after = retry_after


class UpstreamError(BrokerError):
    """Something the broker depends on refused or failed; `retryable` if it may pass."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class IssuerUnavailable(UpstreamError):
    """An issuer's discovery document or keys could not be had."""


class SecretUnavailable(UpstreamError):
    """A secret could not be read, and no value within its stated bound is cached."""


class CredentialUnavailable(UpstreamError):
    """A provider could not mint a credential; whatever it may have left behind is revoked.

    `untouched` says that it certainly left nothing.
    """

    def __init__(
        self, message: str, *, retryable: bool = False, untouched: bool | None = None
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.untouched = not retryable if untouched is None else untouched


class StorageError(BrokerError):
    """Durable records could not be read or written."""


class LimitsUnavailable(StorageError):
    """Requests cannot be counted now, so that none which has limits may pass."""


class AuditUnavailable(BrokerError):
    """The audit trail cannot record; whatever was to be recorded must not happen."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest of `known`, or nothing."""
    near = get_close_matches(word, tuple(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
