"""The main job in five steps, each shown as whoever does it would see it."""

from __future__ import annotations

import asyncio
import base64
import json
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import typer

from broker.cli import output

if TYPE_CHECKING:
    import httpx

    from broker.audit.verify import Report
    from broker.settings import Settings

_OK: Final = 200
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_LIFETIME: Final = 900
_LOOKS: Final = 60
_LOOK_EVERY: Final = 0.05


@dataclass(slots=True)
class Stage:
    """Show steps as they happen, or keep them for `--json`; remember what went otherwise."""

    quiet: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every step so far ended as it must."""
        return all(step["passed"] for step in self.steps)

    def step(self, title: str, command: str) -> None:
        """Begin a step: what it shows, and the command line that does the same."""
        self.steps.append({"title": title, "command": command, "answer": "", "passed": False})
        if not self.quiet:
            number = typer.style(f"{len(self.steps)}", fg="cyan", bold=True)
            typer.echo(f"\n{number}  {typer.style(title, bold=True)}")
            typer.echo(f"   {typer.style('$', dim=True)} {command}")

    def answer(self, text: str, *, passed: bool, refusal: bool = False) -> None:
        """End the step with what came back, and whether that is what had to come."""
        self.steps[-1] |= {"answer": text, "passed": passed}
        if not self.quiet:
            color = "yellow" if refusal else "green"
            typer.echo(typer.style(textwrap.indent(text, "   "), fg=color if passed else "red"))
            if not passed:
                typer.echo(typer.style("   That is not what should have happened.", fg="red"))


def describe(response: httpx.Response) -> str:
    """Return an HTTP answer as text: status line, the broker's own header, indented body."""
    lines = [f"HTTP {response.status_code} {response.reason_phrase}"]
    if "Broker-Error" in response.headers:
        lines.append(f"Broker-Error: {response.headers['Broker-Error']}")
    try:
        body = json.dumps(response.json(), indent=2, ensure_ascii=False)
    except ValueError:
        body = response.text
    return "\n".join([*lines, *(output.printable(line) for line in body.splitlines())])


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, to be looked at; nothing is verified."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return dict(claims)


async def play(stage: Stage, settings: Settings, agent: str, api_url: str) -> None:
    """Play the main job against a running broker."""
    from broker import http
    from broker.cli.token import request_token

    task = "say what became of order 1001"
    gateway = f"{settings.gateway_url}/orders"
    async with http.client(allow_private=True, allow_loopback_http=True) as client:
        stage.step(
            "The agent has no key, and the API wants one.", f"curl {api_url}/v1/orders/ord_1001"
        )
        response = await client.get(f"{api_url}/v1/orders/ord_1001")
        stage.answer(describe(response), passed=response.status_code == _UNAUTHORIZED, refusal=True)

        stage.step(
            "It proves what it is, asks for what this task needs, and gets a task token.",
            f"TOKEN=$(broker token --agent {agent} --scope orders.read --task '{task}')",
        )
        answer = await request_token(settings, agent, {"scope": "orders.read", "task": task})
        token = answer["access_token"]
        claims = claims_of(token)
        stage.answer(
            f"{token[:20]}... is a JWT that says\n{json.dumps(claims, indent=2)}",
            passed=claims["scope"] == "orders.read" and claims["exp"] - claims["iat"] <= _LIFETIME,
        )

        stage.step(
            "With it, it calls through the gateway, which puts the real key in.",
            f'curl -H "Authorization: Bearer $TOKEN" {gateway}/v1/orders/ord_1001',
        )
        header = {"Authorization": f"Bearer {token}"}
        response = await client.get(f"{gateway}/v1/orders/ord_1001", headers=header)
        stage.answer(describe(response), passed=response.status_code == _OK)

        stage.step(
            "What the task token is not for is refused, and the refusal says how to get it.",
            f'curl -X POST -H "Authorization: Bearer $TOKEN" {gateway}/v1/refunds',
        )
        response = await client.post(f"{gateway}/v1/refunds", headers=header)
        stage.answer(describe(response), passed=response.status_code == _FORBIDDEN, refusal=True)
    lines = await _logs(settings)
    stage.step("All of it is on record.", "broker logs")
    stage.answer("\n".join(lines), passed=sum("BLOCKED" in line for line in lines) == 1)

    stage.step("The record proves that it is whole.", "broker audit verify")
    report = await _signed_report(settings)
    stage.answer(
        "\n".join(
            f"{writer.writer}: {writer.records} records, chained by SHA-256, signed up to record "
            f"{writer.signed}; none changed, moved or missing"
            for writer in report.writers
        ),
        passed=report.whole and any(writer.signed for writer in report.writers),
    )


async def _logs(settings: Settings) -> list[str]:
    """Return the trail's lines, as soon as the last step is among them."""
    from broker.app.home import Places
    from broker.audit.query import Filter, Log
    from broker.audit.render import event_line

    lines: list[str] = []
    for _ in range(_LOOKS):
        log = Log(Places(settings.home).audit, Filter())
        lines = [event_line(event) for event in log.history(None)]
        if lines and "BLOCKED" in lines[-1]:
            break
        await asyncio.sleep(_LOOK_EVERY)
    return lines


async def _signed_report(settings: Settings) -> Report:
    """Return what there is to say of the trail, as soon as its head has been signed."""
    report = await asyncio.to_thread(_verify, settings)
    for _ in range(_LOOKS):
        if any(writer.signed for writer in report.writers):
            break
        await asyncio.sleep(_LOOK_EVERY)
        report = await asyncio.to_thread(_verify, settings)
    return report


def _verify(settings: Settings) -> Report:
    from broker.app.home import Places, open_keys
    from broker.app.trail import trusted_keys
    from broker.audit.verify import verify

    return verify(Places(settings.home).audit, trusted_keys(open_keys(settings).audit))
