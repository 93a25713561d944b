"""A broker with defects, run as `python -m tests.attacks.faulty_broker serve`.

Where the real one would not, it raises exceptions whose text holds the credential: while it
supplies one now and then, and while it reads a response that leads to `/fault`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from broker.cli.main import main
from broker.gateway import translate as module
from broker.gateway.translate import translate as real_translate
from providers.http_api import HttpApi

if TYPE_CHECKING:
    from broker.gateway.grammar import Field
    from broker.gateway.inject import Credential
    from broker.gateway.route import Route
    from providers.base import CredentialRequest, Injection

_injection = HttpApi.injection
_times = itertools.count()


def translate(fields: tuple[Field, ...], route: Route, credential: Credential) -> bytes:
    """Fail on `/fault`, with the credential in the exception."""
    if any(field.value == b"/fault" for field in fields):
        raise RuntimeError(f"defect: {credential.lines!r} {credential.query!r}")
    return real_translate(fields, route, credential)


async def injection(self: HttpApi, request: CredentialRequest) -> Injection:
    """Fail every third time, with the secret in the exception."""
    found = await _injection(self, request)
    if next(_times) % 3 == 0:
        raise RuntimeError(f"defect: {[one.reveal() for one in found.secrets]}")
    return found


if __name__ == "__main__":
    vars(module)["translate"] = translate
    HttpApi.injection = injection  # type: ignore[method-assign]
    main()
