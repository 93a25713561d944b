"""Say whether the broker lives (`/healthz`) and whether it can do its work (`/readyz`)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

PROBE_TIMEOUT: Final = 2.0
"""How long, in seconds, one probe may take."""


@dataclass(frozen=True, slots=True)
class Health:
    """How one part of the broker is.

    `degraded` works, but not as it should (an older policy, cached secrets); `failing` does
    not work. `reason` says why, in words for whoever must mend it, without secrets.
    """

    state: Literal["ok", "degraded", "failing"]
    reason: str | None = None


Probe = "Callable[[], Awaitable[Health]]"
OK: Final = Health("ok")
_WORST_LAST: Final = ("ok", "degraded", "failing")


class HealthEndpoints:
    """Answer for the broker's health by asking each named probe."""

    def __init__(self, probes: Mapping[str, Callable[[], Awaitable[Health]]]) -> None:
        self._probes = probes

    async def live(self, _request: Request) -> Response:
        """Answer 200 as long as the event loop turns."""
        return _json(200, {"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """Answer 200 if every part works, and 503 if one does not; name each part's state."""
        healths = await asyncio.gather(*(_ask(probe) for probe in self._probes.values()))
        parts = dict(zip(self._probes, healths, strict=True))
        worst = max((health.state for health in healths), key=_WORST_LAST.index, default="ok")
        return _json(
            503 if worst == "failing" else 200,
            {
                "status": worst,
                "checks": {
                    name: {"state": health.state}
                    | ({"reason": health.reason} if health.reason else {})
                    for name, health in parts.items()
                },
            },
        )


async def _ask(probe: Callable[[], Awaitable[Health]]) -> Health:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            return await probe()
    except TimeoutError:
        return Health("failing", f"gave no answer within {PROBE_TIMEOUT:.0f} s")
    except Exception as error:  # noqa: BLE001 - one broken probe must not hide the others
        return Health("failing", f"could not be asked ({type(error).__name__})")


def _json(status: int, document: object) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")
