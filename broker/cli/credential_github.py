"""`broker credential github` and `git`: a GitHub token, as gh and git take it.

GH_TOKEN=$(broker credential github issues.write) gh issue list
git config credential.helper '!broker credential git repo.write'
"""

from __future__ import annotations

import re
import sys
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any, Final

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

_USER: Final = "x-access-token"
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_LONGEST_QUESTION: Final = 65_536


def github(  # noqa: PLR0913 - each is an option
    scope: ScopeArgument,
    *,
    agent: AgentOption = None,
    task: TaskOption = None,
    reason: ReasonOption = None,
    ttl: TtlOption = None,
    home: output.HomeOption = None,
) -> None:
    """Print a GitHub token, and nothing else: GH_TOKEN=$(broker credential github SCOPE)."""
    answer = collect(scope, agent, home, task=task, reason=reason, ttl=ttl)
    typer.echo(_token(answer))


def git(  # noqa: PLR0913 - each is an option
    scope: ScopeArgument,
    operation: Annotated[
        str, typer.Argument(metavar="OPERATION", help="What git wants: get, store or erase.")
    ],
    *,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="The only host that the token is for.")
    ] = "github.com",
    agent: AgentOption = None,
    task: TaskOption = None,
    reason: ReasonOption = None,
    ttl: TtlOption = None,
    home: output.HomeOption = None,
) -> None:
    """Be git's credential helper: git config credential.helper '!broker credential git SCOPE'."""
    asked = attributes(sys.stdin.read(_LONGEST_QUESTION))
    # What is for another host is for another helper: git asks on where it is told nothing.
    if operation != "get" or (asked.get("protocol"), asked.get("host")) != ("https", host):
        return
    answer = collect(scope, agent, home, task=task, reason=reason, ttl=ttl)
    typer.echo(f"username={_USER}\npassword={_token(answer)}")
    typer.echo(f"password_expiry_utc={int(answer['expires_at'])}")


def attributes(text: str) -> dict[str, str]:
    """Return what git says of the credential that it wants (git-credential(1), INPUT/OUTPUT)."""
    lines = takewhile(bool, text.split("\n"))  # an empty one ends the list
    return {name: value for name, equals, value in (one.partition("=") for one in lines) if equals}


def _token(answer: Mapping[str, Any]) -> str:
    token = answer["credential"].get("token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"scope {output.printable(str(answer.get('scope')))} has no GitHub token; "
            "`broker credential SCOPE` prints what it has"
        )
    return token
