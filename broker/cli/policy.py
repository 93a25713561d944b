"""`broker policy`: check policies, run their tests, explain their answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import output, policy_history

if TYPE_CHECKING:
    from broker.errors import Problem
    from broker.policy.body import Content
    from broker.policy.engine import Policy
    from broker.policy.explain import Explanation
    from broker.policy.fixtures import Result

DirectoryArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR]",
        help="Where the policies are (default: the broker's own).",
        show_default=False,
    ),
]
_MARKS = {"error": "red", "warning": "yellow"}


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(
        help="Check policies, run their tests, explain their answers, look at their history.",
        no_args_is_help=True,
    )
    group.command("check")(check)
    group.command("test")(run_tests)
    group.command("explain")(explain)
    policy_history.register(group)
    app.add_typer(group, name="policy")


def check(
    directory: DirectoryArgument = None,
    *,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Find mistakes, which keep policies from loading, and what to reconsider."""
    from broker.errors import PolicyError

    policy: Policy | None = None
    errors: tuple[Problem, ...] = ()
    try:
        policy = _load(directory, home)
    except PolicyError as error:
        errors = error.problems
    warnings = policy.warnings if policy is not None else ()
    data: dict[str, Any] = {
        "version": policy.version if policy is not None else None,
        "errors": [_problem(one) for one in errors],
        "warnings": [_problem(one) for one in warnings],
    }

    def human() -> None:
        for kind, problems in (("error", errors), ("warning", warnings)):
            for one in problems:
                _print_problem(kind, one)
        typer.echo(_summary(policy, len(errors), len(warnings)))

    output.emit(data, human, json)
    if errors:
        raise typer.Exit(1)


def run_tests(
    directory: DirectoryArgument = None,
    *,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Run the tests beside the policies (*.test.yaml): identity, request, expected decision."""
    from broker.policy.fixtures import run_fixtures
    from broker.reload import TEST_SUFFIXES, read_policies

    place = _place(directory, home)
    documents = read_policies(place, TEST_SUFFIXES)
    results = run_fixtures(_load(directory, home), documents)
    if not results:
        output.fail(
            f"there are no policy tests in {place}",
            "write NAME.test.yaml beside the policies; the shipped examples have some",
        )
    failed = sum(bool(result.failures) for result in results)
    data = {
        "passed": len(results) - failed,
        "failed": failed,
        "tests": [
            {"name": one.name, "place": str(one.place), "failures": list(one.failures)}
            for one in results
        ],
    }

    def human() -> None:
        for result in results:
            _print_result(result)
        typer.echo(f"{len(results) - failed} passed, {failed} failed")

    output.emit(data, human, json)
    if failed:
        raise typer.Exit(1)


def explain(  # noqa: PLR0913 - the command's arguments and options
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Such as GET.")],
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="After the service's name, such as /v1/charges?limit=1."
        ),
    ],
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="Who asks.")],
    scope: Annotated[str, typer.Option(metavar="SCOPE", help="What its task token lists.")],
    websocket: Annotated[
        bool, typer.Option("--websocket", help="The request is to open a websocket.")
    ] = False,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="FIELD", help="A field of it, such as 'Sudo: 1'; again."),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The request's body; - reads it.", show_default=False),
    ] = None,
    content_type: Annotated[
        str, typer.Option(metavar="TYPE", help="What the body is.")
    ] = "application/json",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--policies", metavar="DIR", help="Where the policies are.", show_default=False
        ),
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Say step by step which rule decides a request."""
    from broker.model import Allow
    from broker.policy.explain import Request
    from broker.policy.explain import explain as explained

    raw, _, query = os.fsencode(path).partition(b"?")
    request = Request(method, raw, query, websocket, _fields(header), _content(body, content_type))
    explanation = explained(_load(directory, home), agent, scope, request)
    decision = explanation.decision
    data = {
        "decision": "allow" if isinstance(decision, Allow) else "deny",
        "rule": decision.rule,
        "risk": decision.risk if isinstance(decision, Allow) else None,
        "reason": None if isinstance(decision, Allow) else decision.reason,
        "allowed": [] if isinstance(decision, Allow) else list(decision.allowed),
        "steps": [
            {
                "kind": one.kind,
                "subject": one.subject,
                "finding": one.finding,
                "decisive": one.decisive,
            }
            for one in explanation.steps
        ],
    }
    output.emit(data, lambda: _print_explanation(explanation), json)


def _content(body: str | None, content_type: str) -> Content:
    import os
    import sys

    from broker.policy.body import NO_BODY, Content

    if body is None:
        return NO_BODY
    return Content(sys.stdin.buffer.read() if body == "-" else os.fsencode(body), content_type)


def _fields(header: list[str] | None) -> tuple[tuple[bytes, bytes], ...]:
    fields = [os.fsencode(one).partition(b":") for one in header or ()]
    for name, colon, _ in fields:
        if not (name and colon):
            raise typer.BadParameter("expected a name, a colon and a value: 'Sudo: 1'")
    return tuple((name.lower(), value.strip()) for name, _, value in fields)


def _place(directory: Path | None, home: Path | None) -> Path:
    return directory if directory is not None else output.settings_from(home).policies


def _load(directory: Path | None, home: Path | None) -> Policy:
    if directory is not None:
        from broker.policy.loader import load_policy
        from broker.reload import read_policies

        return load_policy(read_policies(directory))
    from broker.app.backends import reference_check
    from broker.app.policies import home_policy

    settings = output.settings_from(home)
    return home_policy(settings, reference_check(settings))


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
    }


def _print_problem(kind: str, problem: Problem) -> None:
    place = output.printable(f"{problem.file}:{problem.line}:{problem.column}")
    mark = typer.style(f"{kind}:", fg=_MARKS[kind], bold=True)
    typer.echo(f"{place}: {mark} {output.printable(problem.message)}")


def _summary(policy: Policy | None, errors: int, warnings: int) -> str:
    if policy is None:
        return f"{_counted(errors, 'error')}: a running broker keeps its last good policy"
    parts = (
        _counted(len(policy.services), "service"),
        _counted(len(policy.scopes), "scope"),
        _counted(len(policy.agents), "agent"),
        _counted(warnings, "warning"),
    )
    return f"ok: {', '.join(parts)}; {policy.version}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _print_result(result: Result) -> None:
    name = output.printable(result.name)
    if not result.failures:
        typer.echo(f"{typer.style('ok', fg='green')}    {name}")
        return
    place = output.printable(str(result.place))
    typer.echo(f"{typer.style('FAIL', fg='red', bold=True)}  {name}  ({place})")
    for failure in result.failures:
        typer.echo(f"      {output.printable(failure)}")


def _print_explanation(explanation: Explanation) -> None:
    from broker.model import Allow

    width = max(len(step.subject) for step in explanation.steps)
    for step in explanation.steps:
        line = f"{step.kind:9}  {step.subject:{width}}  {step.finding}"
        typer.echo(typer.style(output.printable(line), bold=step.decisive))
    decision = explanation.decision
    if isinstance(decision, Allow):
        verdict = typer.style("allowed", fg="green", bold=True)
        typer.echo(f"\n{verdict} by {decision.rule} of {decision.scope}, risk {decision.risk}")
        return
    typer.echo(f"\n{typer.style('denied', fg='red', bold=True)}: {decision.reason}")
    if decision.allowed:
        typer.echo("what would be allowed:")
        for rule in decision.allowed:
            typer.echo(f"  {rule}")
