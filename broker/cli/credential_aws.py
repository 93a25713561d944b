"""`broker credential aws`: an AWS session, as AWS's SDKs read it from a `credential_process`.

[profile artifacts]
credential_process = broker credential aws artifacts.read --ttl 1h
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer

from broker.cli import output
from broker.cli.credential import (
    AgentOption,
    ReasonOption,
    ScopeArgument,
    TaskOption,
    TtlOption,
    collect,
)
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARTS: Final = ("AccessKeyId", "SecretAccessKey", "SessionToken")


def aws(  # noqa: PLR0913 - each is an option
    scope: ScopeArgument,
    *,
    agent: AgentOption = None,
    task: TaskOption = None,
    reason: ReasonOption = None,
    ttl: TtlOption = None,
    home: output.HomeOption = None,
) -> None:
    """Print an AWS session for credential_process; SDKs ask again in its last 15 minutes."""
    answer = collect(scope, agent, home, task=task, reason=reason, ttl=ttl)
    typer.echo(json.dumps(document(answer)))


def document(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what AWS's SDKs expect of a process that sources credentials.

    Raises:
        ConfigurationError: the credential is no AWS session.
    """
    credential = answer["credential"]
    if any(part not in credential for part in _PARTS):
        raise ConfigurationError(
            f"scope {output.printable(str(answer.get('scope')))} has no AWS session; "
            "`broker credential SCOPE` prints what it has"
        )
    end = datetime.fromtimestamp(answer["expires_at"], UTC)
    return {
        "Version": 1,
        **{part: credential[part] for part in _PARTS},
        "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
