"""The fields of a policy document.

    identity_sources:  {name: OidcSource | LocalSource}
    services:          {name: ServiceFields and those of its provider}
    scopes:            {name: ScopeFields and those of its service's provider}
    agents:            {name: AgentFields}

The models refuse unknown fields and coerce nothing; the JSON Schema that editors use is made
from them. What spans several entries is checked in `loader`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    WithJsonSchema,
    model_validator,
)

from broker.addresses import why_not_issuer_url
from broker.allowance import LARGEST_BODY, Limits, Rate
from broker.model import LONGEST_LIFETIME, Replay
from broker.policy.behalf import BehalfRule, parse_behalf
from broker.policy.body import BodyRule, parse_body
from broker.policy.conditions import Condition, parse_condition
from broker.policy.limits import (
    MOST_AT_ONCE,
    MOST_IN_TOTAL,
    RATE_PATTERN,
    count_up_to,
    parse_rates,
    parse_size,
)
from broker.policy.query import Parameter, parse_parameters
from broker.policy.rules import Rule, parse_rule
from broker.policy.timeouts import Timeouts  # noqa: TC001 - pydantic reads it
from broker.settings.values import duration
from providers.base import Delivery  # noqa: TC001 - pydantic reads it

SECTIONS: Final = ("identity_sources", "services", "scopes", "agents")
NAME: Final = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"

_ALGORITHMS = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


def is_name(text: str) -> bool:
    """Tell whether `text` may name a service, a scope, an agent or an identity source."""
    return re.fullmatch(NAME, text) is not None and ".." not in text


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(
            "a name is up to 64 lower-case letters, digits, '.', '_' and '-', "
            "and begins and ends with a letter or digit"
        )
    return text


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: list[Any] = []
    for value in values:
        if value in seen:
            raise ValueError(f"lists {getattr(value, 'text', value)!r} twice")
        seen.append(value)
    return values


def _lifetime(value: object) -> int:
    try:
        seconds = duration(value)
    except ValueError as error:
        raise ValueError(f"expected {error}") from None
    if seconds > LONGEST_LIFETIME:
        raise ValueError(f"is more than a day ({LONGEST_LIFETIME}s), the most there is")
    return seconds


def _issuer_url(value: str) -> str:
    refusal = why_not_issuer_url(value)
    if refusal is not None:
        raise ValueError(f"{refusal}; write a URL such as https://issuer.example.com")
    return value


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME})]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Url = Annotated[str, AfterValidator(_issuer_url), Field(json_schema_extra={"format": "uri"})]
Duration = Annotated[
    int,
    PlainValidator(_lifetime),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,9}[smhd]?$"},
                {"type": "integer", "minimum": 1, "maximum": LONGEST_LIFETIME},
            ],
            "examples": ["15m", "1h", "90s"],
        }
    ),
]
_RULE_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^(\*|[A-Z-]+) /\S*$",
    "examples": ["GET /v1/**", "POST /v1/refunds", "* /**"],
}
Rules = Annotated[
    tuple[Annotated[Rule, PlainValidator(parse_rule), WithJsonSchema(_RULE_SCHEMA)], ...],
    Field(min_length=1),
    AfterValidator(_distinct),
]
_GLOB_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"glob": {"type": "string", "pattern": r"\*"}},
    "required": ["glob"],
    "additionalProperties": False,
}


def _alternatives_schema(*scalars: str) -> dict[str, Any]:
    one = {"anyOf": [{"type": list(scalars)}, _GLOB_SCHEMA]}
    return {"anyOf": [*one["anyOf"], {"type": "array", "minItems": 1, "items": one}]}


ClaimCondition = Annotated[
    Condition,
    PlainValidator(parse_condition),
    WithJsonSchema(_alternatives_schema("string", "integer", "boolean")),
]
_ANY_SCHEMA: Final = {
    "type": "object",
    "properties": {"any": {"const": True}},
    "required": ["any"],
    "additionalProperties": False,
}
_MAX_SCHEMA: Final = {
    "type": "object",
    "properties": {"max": {"type": "integer", "minimum": 1}},
    "required": ["max"],
    "additionalProperties": False,
}


def _fields_schema(*scalars: str, nested: bool = False) -> dict[str, Any]:
    options = [*_alternatives_schema(*scalars)["anyOf"], _ANY_SCHEMA, _MAX_SCHEMA]
    if nested:
        inner = {"type": "object", "minProperties": 1}
        options.append(
            {
                "type": "object",
                "properties": {"fields": inner | {"additionalProperties": True}},
                "required": ["fields"],
                "additionalProperties": False,
            }
        )
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"anyOf": options},
    }


Query = Annotated[
    dict[str, Parameter],
    PlainValidator(parse_parameters),
    WithJsonSchema(_fields_schema("string", "integer")),
]
Behalf = Annotated[
    BehalfRule,
    PlainValidator(parse_behalf),
    WithJsonSchema(_fields_schema("string", "integer")),
]
Body = Annotated[
    BodyRule,
    PlainValidator(parse_body),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "json": _fields_schema("string", "integer", "boolean", nested=True),
                "form": _fields_schema("string", "integer"),
                "max_bytes": {"type": ["integer", "string"], "examples": ["64KiB"]},
            },
            "oneOf": [{"required": ["json"]}, {"required": ["form"]}],
            "additionalProperties": False,
        }
    ),
]


_RATE_SCHEMA: Final = {
    "type": "string",
    "pattern": RATE_PATTERN,
    "examples": ["30/minute", "5/second", "1000/day"],
}
Rates = Annotated[
    tuple[Rate, ...],
    PlainValidator(parse_rates),
    WithJsonSchema(
        {"anyOf": [_RATE_SCHEMA, {"type": "array", "minItems": 1, "items": _RATE_SCHEMA}]}
    ),
]
Size = Annotated[
    int,
    PlainValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,12}(B|KiB|MiB|GiB)?$"},
                {"type": "integer", "minimum": 1, "maximum": LARGEST_BODY},
            ],
            "examples": ["512KiB", "1MiB"],
        }
    ),
]


def _count_schema(most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": 1, "maximum": most})


class _Model(BaseModel):
    # What stands in a policy may be a secret in the wrong place: no message repeats it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class OidcSourceConfig(_Model):
    """Trust tokens of an OpenID Connect issuer, verified with its published keys.

    `issuer` is the exact `iss`. A token must name one of `audiences` (by default the broker's
    own issuer) and no other unless `allow_extra_audiences`. Durations are in seconds;
    `max_token_age` counts from `iat`. `replay: until_exp` lets one token be exchanged again
    and again, for issuers whose tokens are files that workloads reread.
    """

    type: Literal["oidc"]
    issuer: Url
    audiences: Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_distinct)] = ()
    algorithms: Annotated[tuple[_ALGORITHMS, ...], Field(min_length=1)] = ("RS256", "ES256")
    replay: Replay = "single_use"
    max_token_age: Duration = 3600
    jwks_uri: Url | None = None
    allow_extra_audiences: StrictBool = False
    leeway: Annotated[Duration, Field(le=60)] = 30
    stale_keys_for: Duration = 3600
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None
    allow_private: StrictBool = False
    description: Text | None = None


class LocalSourceConfig(_Model):
    """Trust client assertions signed with the keys that were enrolled with this broker."""

    type: Literal["local"]
    description: Text | None = None


SourceConfig = Annotated[OidcSourceConfig | LocalSourceConfig, Field(discriminator="type")]


class ServiceFields(_Model):
    """What a service of any provider says; the provider's own fields stand beside these."""

    provider: Annotated[str, Field(description="Which kind of service it is.")]
    description: Text | None = None
    timeouts: Timeouts | None = None


Registry = Annotated[
    str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$", max_length=253)
]
"""A container registry's host, and port where it is not 443."""


class LimitFields(_Model):
    """How much may be used of a scope, or by an agent. What is not listed is not limited."""

    rate: Annotated[Rates, Field(description="Requests in any such window.")] | None = None
    concurrent: (
        Annotated[
            int,
            PlainValidator(count_up_to(MOST_AT_ONCE)),
            _count_schema(MOST_AT_ONCE),
            Field(description="Requests under way at once, streams included."),
        ]
        | None
    ) = None
    total: (
        Annotated[
            int,
            PlainValidator(count_up_to(MOST_IN_TOTAL)),
            _count_schema(MOST_IN_TOTAL),
            Field(description="Requests of one grant, with all that descend from it."),
        ]
        | None
    ) = None
    request_bytes: Annotated[Size, Field(description="Of one request's body.")] | None = None
    response_bytes: Annotated[Size, Field(description="Of one response's body.")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value:
            raise ValueError(
                "an empty mapping limits nothing; leave it out, or write one such as "
                "{rate: 30/minute}"
            )
        return value

    def compiled(self) -> Limits:
        """Return the limits themselves."""
        return Limits(
            self.rate or (),
            self.concurrent,
            self.total,
            self.request_bytes,
            self.response_bytes,
        )


class ScopeFields(_Model):
    """What a scope of any provider says; the provider's own fields stand beside these."""

    service: Name
    description: Text | None = None
    allow: Rules | None = None
    deny: Rules | None = None
    query: Query | None = None
    body: Body | None = None
    delivery: Annotated[tuple[Delivery, ...], Field(min_length=1), AfterValidator(_distinct)] = (
        "proxy",
    )
    registries: (
        Annotated[tuple[Registry, ...], Field(min_length=1), AfterValidator(_distinct)] | None
    ) = None
    max_ttl: Duration | None = None
    reason: Literal["required", "optional"] = "optional"
    risk: Literal["medium", "high"] | None = None
    websocket: StrictBool | None = None
    on_behalf: Behalf | None = None
    limits: LimitFields | None = None


class Trust(_Model):
    """Which workload identities of one source are the agent: those whose claims all match."""

    source: Name
    claims: Annotated[dict[str, ClaimCondition], Field(min_length=1)] | None = None


class AgentFields(_Model):
    """Who the agent is, and what it may ask for."""

    trust: Annotated[tuple[Trust, ...], Field(min_length=1)]
    scopes: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_distinct)]
    max_ttl: Duration | None = None
    description: Text | None = None
    limits: LimitFields | None = None
