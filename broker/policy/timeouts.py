"""How long the gateway waits for a service, as a policy says it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from providers.base import Upstream

_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h)")
_UNIT: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError("expected a duration such as 10s, 2m or 500ms")
        return float(match[1]) * _UNIT[match[2]]
    if isinstance(value, bool):
        raise ValueError("expected a duration such as 10s")  # noqa: TRY004 - pydantic reports these
    return value


Timeout = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str | float)]


class Timeouts(BaseModel):
    """How long to wait for a service; what is left out is as the provider says.

    `connect` is for a connection, TLS included (60s at most), `first_byte` for a response to begin
    once the request is sent, `idle` for more of a response or of a websocket (1h at most).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    connect: Annotated[Timeout, Field(gt=0, le=60)] | None = None
    first_byte: Annotated[Timeout, Field(gt=0, le=3600)] | None = None
    idle: Annotated[Timeout, Field(gt=0, le=3600)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Timeouts:
        if self.connect is self.first_byte is self.idle is None:
            raise ValueError("give at least one of connect, first_byte and idle")
        return self

    def applied_to(self, upstream: Upstream) -> Upstream:
        """Return the upstream with these times, and its own where nothing is said."""
        return replace(
            upstream,
            connect_timeout=self.connect or upstream.connect_timeout,
            first_byte_timeout=self.first_byte or upstream.first_byte_timeout,
            idle_timeout=self.idle or upstream.idle_timeout,
        )
