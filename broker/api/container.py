"""`GET /credentials/aws/<scope>`: an AWS session, as AWS's SDKs ask for one in a container.

Point `AWS_CONTAINER_CREDENTIALS_FULL_URI` here and put the task token into
`AWS_CONTAINER_AUTHORIZATION_TOKEN`; the SDK sends it as the Authorization header, as it stands.
An SDK asks again in a session's last minutes, and gets the same session while it is good.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from broker.api.credentials import CredentialEndpoint, parts, token_missing, usable_until
from broker.api.request import read_head
from broker.errors import CredentialRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope

    from broker.api.credentials import Ask
    from broker.leases.minting import Issued

CONTAINER_PATH: Final = "/credentials/aws/{name}"

_PROVIDER: Final = "aws_sts"
_TOKEN: Final = re.compile(rb"(?:[Bb][Ee][Aa][Rr][Ee][Rr] +)?([A-Za-z0-9._~+/-]+=*)")
_NAME: Final = re.compile(r"[a-z0-9._-]{1,64}")


class ContainerEndpoint(CredentialEndpoint):
    """Hand out AWS sessions in the JSON of AWS's container credentials (ASGI)."""

    async def asked(self, scope: Scope, receive: Receive, source: str | None) -> Ask:  # noqa: ARG002
        """Return what a request asks the leases for; raises `Unreadable`, `CredentialRefused`."""
        authorization = read_head(scope, "GET").get(b"authorization")
        if authorization is None:
            raise token_missing()
        match = _TOKEN.fullmatch(authorization)
        if match is None:
            raise CredentialRefused("invalid_token", "the Authorization header is no task token")
        name = scope["path_params"]["name"]
        if not _NAME.fullmatch(name):
            raise CredentialRefused("invalid_request", "the path does not end in a scope's name")
        return partial(self.leases.collect, match[1], name, _PROVIDER, source)

    def document(self, issued: Issued) -> Mapping[str, Any]:
        """Return a session as AWS's SDKs read it."""
        session = parts(issued)
        return {
            "AccessKeyId": session["AccessKeyId"],
            "SecretAccessKey": session["SecretAccessKey"],
            "Token": session["SessionToken"],
            "Expiration": datetime.fromtimestamp(usable_until(issued), UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            ),
        }
