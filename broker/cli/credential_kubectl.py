"""`broker credential kubectl`: a Kubernetes credential, as kubectl reads it from an exec plugin.

users:
- name: task
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: broker
      args: [credential, kubectl, pods.read]
      interactiveMode: Never
"""

from __future__ import annotations

import json
import os
import re
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
from broker.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUP: Final = "client.authentication.k8s.io"
_VERSIONS: Final = (f"{_GROUP}/v1", f"{_GROUP}/v1beta1")
_INFO: Final = "KUBERNETES_EXEC_INFO"
_OWN: Final = "service_account_token"
"""What Vault's Kubernetes engine calls its token."""

_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
"""What a `token` must be, that a GitHub, Vault or Consul token is never shown to a cluster."""


def kubectl(  # noqa: PLR0913 - each is an option
    scope: ScopeArgument,
    *,
    agent: AgentOption = None,
    task: TaskOption = None,
    reason: ReasonOption = None,
    ttl: TtlOption = None,
    home: output.HomeOption = None,
) -> None:
    """Print an ExecCredential for kubectl: a token, or a client certificate and its key."""
    version = api_version(os.environ.get(_INFO))
    answer = collect(scope, agent, home, task=task, reason=reason, ttl=ttl)
    typer.echo(json.dumps(document(answer, version)))


def api_version(info: str | None) -> str:
    """Return the version of ExecCredential that kubectl asks for in its environment.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins

    Raises:
        ConfigurationError: it is one that nobody here knows, or no ExecCredential at all.
    """
    if not info:
        return _VERSIONS[0]
    try:
        asked = json.loads(info)["apiVersion"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigurationError(f"{_INFO} holds no ExecCredential in JSON") from None
    if asked not in _VERSIONS:
        hint = did_you_mean(str(asked), _VERSIONS)
        raise ConfigurationError(
            f"the kubeconfig asks for apiVersion {output.printable(str(asked))}{hint}; "
            f"write one of: {', '.join(_VERSIONS)}"
        )
    return str(asked)


def document(answer: Mapping[str, Any], version: str) -> dict[str, Any]:
    """Return what kubectl expects of its plugin.

    Raises:
        ConfigurationError: the credential is none that a Kubernetes API server takes.
    """
    end = datetime.fromtimestamp(answer["expires_at"], UTC)
    status = {"expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"), **_shown(answer)}
    return {"apiVersion": version, "kind": "ExecCredential", "status": status}


def _shown(answer: Mapping[str, Any]) -> dict[str, str]:
    credential = answer["credential"]
    token = credential.get(_OWN, credential.get("token"))
    if token is not None and (_OWN in credential or _JWT.fullmatch(str(token))):
        return {"token": token}
    if {"certificate", "private_key"} <= credential.keys():
        certificates = [credential["certificate"], *_chain(credential.get("ca_chain"))]
        return {
            "clientCertificateData": "\n".join(one.strip() for one in certificates) + "\n",
            "clientKeyData": credential["private_key"],
        }
    raise ConfigurationError(
        f"scope {output.printable(str(answer.get('scope')))} has neither a token of Kubernetes nor "
        "a client certificate; `broker credential SCOPE` prints what it has"
    )


def _chain(told: Any) -> list[str]:
    """Return the certificates between a client's and its root, as PKI engines tell them."""
    try:
        chain = json.loads(told) if isinstance(told, str) else told
    except ValueError:
        return []
    return [one for one in chain if isinstance(one, str)] if isinstance(chain, list) else []
