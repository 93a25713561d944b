"""`broker services` and `broker scopes`: what the policy on disk offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import output
from broker.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from broker.model import Scope, Service
    from broker.policy.engine import Policy


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("services")(services)
    app.command("scopes")(scopes)


def services(*, home: output.HomeOption = None, json: output.JsonOption = False) -> None:
    """List services: where they are, which secrets they use, how agents reach them."""
    settings = output.settings_from(home)
    policy = load(home)
    data = [
        _service(service, policy, settings.gateway_url)
        for _, service in sorted(policy.services.items())
    ]

    def human() -> None:
        output.table(
            ("service", "upstream", "secrets", "scopes", "agents use"),
            [
                (
                    item["name"],
                    item["upstream"] or f"({item['provider']})",
                    ", ".join(item["secrets"]) or "-",
                    str(len(item["scopes"])),
                    item["base_url"],
                )
                for item in data
            ],
            "No services: add one with `broker add NAME`; `broker add` lists what is known.",
        )

    output.emit(data, human, json)


def scopes(
    *,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Those that this agent may ask for.")
    ] = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """List scopes: what each allows, under which conditions, and who may ask for it."""
    policy = load(home)
    if agent is not None and agent not in policy.agents:
        raise ConfigurationError(
            f"the policy has no agent {agent!r}{did_you_mean(agent, policy.agents)}"
        )
    wanted = policy.scopes if agent is None else policy.agents[agent].scopes
    data = [_scope(policy.scopes[name], policy) for name in sorted(wanted)]

    def human() -> None:
        output.table(
            ("scope", "allows", "conditions", "agents"),
            [
                (
                    item["name"],
                    _brief(item["allow"]),
                    _conditions(item),
                    ", ".join(item["agents"]) or "-",
                )
                for item in data
            ],
            "No scopes: `broker add NAME` brings some.",
        )

    output.emit(data, human, json)


def load(home: Any) -> Policy:
    """Return the policy that files and the database make; raise `PolicyError` if they make none."""
    from broker.app.policies import home_policy

    return home_policy(output.settings_from(home))


def _service(service: Service, policy: Policy, gateway_url: str) -> dict[str, Any]:
    upstream = service.upstream
    place = None
    if upstream is not None:
        from broker.settings.values import authority

        default = {"https": 443, "http": 80}[upstream.scheme]
        host = (
            upstream.host if upstream.port == default else authority(upstream.host, upstream.port)
        )
        place = f"{upstream.scheme}://{host}{upstream.base_path.decode()}"
    return {
        "name": service.name,
        "provider": service.provider,
        "upstream": place,
        "timeouts": None
        if upstream is None
        else {
            "connect": upstream.connect_timeout,
            "first_byte": upstream.first_byte_timeout,
            "idle": upstream.idle_timeout,
        },
        "secrets": list(service.plugin.secret_references(service.config)),
        "scopes": sorted(s.name for s in policy.scopes.values() if s.service == service.name),
        "base_url": f"{gateway_url}/{service.name}",
    }


def _scope(scope: Scope, policy: Policy) -> dict[str, Any]:
    rules = policy.rules.get(scope.name)
    return {
        "name": scope.name,
        "service": scope.service,
        "description": scope.description,
        "allow": list(scope.allow),
        "deny": list(scope.deny),
        "max_ttl": scope.max_ttl,
        "reason_required": scope.reason_required,
        "risk": scope.risk,
        "websocket": scope.websocket,
        "on_behalf": sorted(one.decode() for one in rules.behalf.names) if rules else [],
        "limits": list(scope.limits.texts) if scope.limits else [],
        "delivery": sorted(scope.delivery),
        "registries": list(scope.registries),
        "agents": sorted(a.name for a in policy.agents.values() if scope.name in a.scopes),
    }


def _brief(rules: list[str]) -> str:
    shown = ", ".join(rules[:2])
    return f"{shown}, and {len(rules) - 2} more" if len(rules) > 2 else shown or "-"  # noqa: PLR2004


def _conditions(item: dict[str, Any]) -> str:
    parts = [
        f"risk {item['risk']}" if item["risk"] else "",
        "websockets" if item["websocket"] else "",
        f"on behalf of others by {', '.join(item['on_behalf'])}" if item["on_behalf"] else "",
        "reason required" if item["reason_required"] else "",
        f"at most {item['max_ttl']}s" if item["max_ttl"] else "",
        f"a login of {', '.join(item['registries'])}" if item["registries"] else "",
        *item["limits"],
    ]
    return ", ".join(filter(None, parts)) or "-"
