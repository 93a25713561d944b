"""What a policy says of AWS sessions: which role, as whom, and what of its rights."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from providers.aws_sts.api import Api  # noqa: TC001 - pydantic reads it at run time
from providers.aws_sts.model import ENDPOINT, REGION, Model, domain_of, partition_of
from providers.base import Templated

SHORTEST: Final = 900
"""Seconds that a session lives at least (AWS's `DurationSeconds`)."""

LONGEST: Final = 43_200
"""Seconds that a session lives at most."""

LARGEST_POLICY: Final = 2_048
"""Characters of the session policy and `policy_arns` together, before AWS packs them."""

_ROLE: Final = r"^arn:aws(?:-[a-z]+)*:iam::(?:[0-9]{12})?:role/[A-Za-z0-9_+=,.@/-]{1,576}$"
_POLICY: Final = r"^arn:aws(?:-[a-z]+)*:iam::(?:aws|[0-9]{12}):policy/[A-Za-z0-9_+=,.@/-]{1,512}$"
_ACTION: Final = r"^(?:\*|[A-Za-z0-9-]{1,64}:[A-Za-z0-9*?]{1,128})$"
_RESOURCE: Final = r"^(?:\*|arn(?::[!-9;-~]*){4}:[!-~]+)$"
_OPERATOR: Final = (
    r"^(?:For(?:Any|All)Values:)?(?:String(?:Not)?(?:Equals(?:IgnoreCase)?|Like)"
    r"|(?:Numeric|Date)(?:Equals|NotEquals|LessThan(?:Equals)?|GreaterThan(?:Equals)?)"
    r"|Bool|BinaryEquals|(?:Not)?IpAddress|Arn(?:Not)?(?:Equals|Like))(?:IfExists)?$|^Null$"
)
_REFERENCE: Final = r"^[a-z][a-z0-9_]*:[^\s\x00-\x1f]+$"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


def _seconds(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,6})([smh]?)", value)):
        return int(match[1]) * _UNITS[match[2]]
    return value


Reference = Annotated[str, Field(pattern=_REFERENCE)]
RoleArn = Annotated[str, Field(pattern=_ROLE)]
TagKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9 _.:/=+@-]{1,128}$")]
TagValue = Annotated[
    str, Templated("A-Za-z0-9_.:/=+@-"), Field(pattern=r"^[A-Za-z0-9 _.:/=+@-]{0,256}$")
]
ConditionValue = Annotated[str, Templated(), Field(pattern=r"^[ -~]{0,1024}$")]
ConditionValues = ConditionValue | Annotated[tuple[ConditionValue, ...], Field(min_length=1)]
MaxSession = Annotated[
    int,
    BeforeValidator(_seconds, json_schema_input_type=str | int),
    Field(ge=SHORTEST, le=LONGEST, strict=True),
]


class DefaultChain(Model):
    """The broker's own credentials are those of its machine, pod or environment."""

    type: Literal["default"] = "default"


class WebIdentity(Model):
    """The broker's own credentials come of an OpenID token in a file, which others renew."""

    type: Literal["web_identity"]
    role_arn: RoleArn
    token_file: Annotated[str, Field(pattern=r"^/[ -~]+$")]


class BrokerIdentity(Model):
    """The broker's own credentials come of a token that it makes about itself.

    Its issuer is an OpenID provider of the account, then, with `audience` as its client.
    """

    type: Literal["broker_identity"]
    role_arn: RoleArn
    audience: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/._-]{1,255}$")] = "sts.amazonaws.com"


class Keys(Model):
    """The broker's own credentials are an access key, both parts of it secret references."""

    type: Literal["keys"]
    access_key_id: Reference
    secret_access_key: Reference


class AwsStsService(Model):
    """The fields of a service of this kind: one role.

    `max_session` is the role's MaxSessionDuration. `endpoint_url` is an STS of one's own (a VPC
    endpoint, another vendor's); `ca_file` is what its certificate is checked with. `api` is what
    the gateway calls with sessions that stay inside.
    """

    role_arn: RoleArn
    region: Annotated[str, Field(pattern=REGION)]
    external_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=,.@:/-]{2,1224}$")] | None = None
    max_session: MaxSession = 3600
    credentials: Annotated[
        DefaultChain | WebIdentity | BrokerIdentity | Keys, Field(discriminator="type")
    ] = DefaultChain()
    endpoint_url: Annotated[str, Field(pattern=ENDPOINT)] | None = None
    insecure_http: StrictBool = False
    ca_file: Annotated[str, Field(pattern=r"^/[ -~]+$")] | None = None
    api: Api | None = None

    @model_validator(mode="after")
    def _check(self) -> AwsStsService:
        partition = partition_of(self.region)
        roles = [self.role_arn]
        if isinstance(self.credentials, WebIdentity | BrokerIdentity):
            roles.append(self.credentials.role_arn)
        if self.endpoint_url is None and not all(
            re.match(rf"arn:{partition}:iam::[0-9]{{12}}:", role) for role in roles
        ):
            raise ValueError(
                f"role_arn: a role in region {self.region} begins with arn:{partition}:iam:: and "
                "an account of 12 digits; another vendor's STS needs endpoint_url"
            )
        if (self.endpoint_url or "").startswith("http:") and not self.insecure_http:
            raise ValueError(
                "endpoint_url is plain http, over which anybody could read the session; "
                "use https, or say insecure_http: true"
            )
        return self

    @property
    def endpoint(self) -> str:
        """Return where STS is; never the global endpoint, which one region's outage stops."""
        return self.endpoint_url or f"https://sts.{self.region}.{domain_of(self.region)}"


class Statement(Model):
    """One statement of a session policy; `conditions` is IAM's operator, key, values."""

    effect: Literal["Allow", "Deny"]
    actions: Annotated[tuple[Annotated[str, Field(pattern=_ACTION)], ...], Field(min_length=1)]
    resources: Annotated[
        tuple[Annotated[str, Templated(), Field(pattern=_RESOURCE, max_length=2048)], ...],
        Field(min_length=1),
    ]
    conditions: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=_OPERATOR)],
                Annotated[
                    dict[Annotated[str, Field(pattern=r"^[!-~]{1,256}$")], ConditionValues],
                    Field(min_length=1),
                ],
            ],
            Field(min_length=1),
        ]
        | None
    ) = None

    @property
    def bounds_nothing(self) -> bool:
        """Tell whether this allows whatever the role may do."""
        every_resource = any(
            not set(one.removeprefix("arn")) - {"*", ":"} for one in self.resources
        )
        everything = "*" in self.actions and every_resource
        return self.effect == "Allow" and everything and self.conditions is None

    def document(self) -> dict[str, Any]:
        """Return the statement in IAM's words."""
        written = {"Effect": self.effect, "Action": self.actions, "Resource": self.resources}
        return written | ({"Condition": self.conditions} if self.conditions else {})


class AwsStsScope(Model):
    """The fields of a scope of this kind: what of the role's rights a session has.

    `policy_arns` are managed policies of the role's account. `transitive_tags` are the session
    tags that sessions opened by this one keep. `full_role` is for a scope that is to have all
    that its role may do. `copy_source` lets requests through the gateway that copy from a place
    which they name in a header, where no rule is judged.
    """

    session_policy: Annotated[tuple[Statement, ...], Field(min_length=1)] | None = None
    policy_arns: (
        Annotated[
            tuple[Annotated[str, Field(pattern=_POLICY)], ...], Field(min_length=1, max_length=10)
        ]
        | None
    ) = None
    full_role: StrictBool = False
    session_tags: Annotated[dict[TagKey, TagValue], Field(min_length=1, max_length=50)] | None = (
        None
    )
    transitive_tags: Annotated[tuple[TagKey, ...], Field(min_length=1)] | None = None
    copy_source: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> AwsStsScope:
        for problem in (self._rights_problem(), self._size_problem(), self._tags_problem()):
            if problem:
                raise ValueError(problem)
        return self

    def _rights_problem(self) -> str | None:
        statements, arns = self.session_policy or (), self.policy_arns or ()
        if self.full_role:
            given = "session_policy" if statements else "policy_arns" if arns else None
            return f"full_role: true is the whole role, and {given} is not; give one" * bool(given)
        if not statements and not arns:
            return (
                "a session policy is missing: give session_policy or policy_arns, or say "
                "full_role: true to hand out all that the role may do"
            )
        if any(one.bounds_nothing for one in statements) or any(
            arn.endswith("policy/AdministratorAccess") for arn in arns
        ):
            return "this allows all that the role may do; to mean it, write full_role: true alone"
        if not arns and all(one.effect == "Deny" for one in statements):
            return "session_policy allows nothing: it needs a statement with effect: Allow"
        return None

    def _size_problem(self) -> str | None:
        # Measured with the statement that ends a session with its grant: it may be needed.
        size = len(self.policy(0.0) or "") + sum(map(len, self.policy_arns or ()))
        if size <= LARGEST_POLICY:
            return None
        return (
            f"session policy and policy_arns have {size} characters, and AWS takes "
            f"{LARGEST_POLICY}; put the long part into a managed policy under policy_arns"
        )

    def _tags_problem(self) -> str | None:
        keys = [key.lower() for key in self.session_tags or ()]
        if len(set(keys)) != len(keys):
            return "session_tags: two keys differ in case alone, which AWS takes for one key"
        if any(key.startswith("aws:") for key in keys):
            return "session_tags: keys that begin with aws: are AWS's own"
        unknown = set(self.transitive_tags or ()) - set(self.session_tags or ())
        if unknown:
            return f"transitive_tags: {', '.join(sorted(unknown))} is no key of session_tags"
        return None

    def policy(self, ends_at: float | None) -> str | None:
        """Return the session policy as AWS takes it: compact JSON, or None if there is none.

        It denies everything after `ends_at` (in seconds since the epoch), where that is given.
        """
        statements = [one.document() for one in self.session_policy or ()]
        if ends_at is not None:
            if self.full_role:
                statements.append({"Effect": "Allow", "Action": "*", "Resource": "*"})
            statements.append(_denial_after(ends_at))
        if not statements:
            return None
        document = {"Version": "2012-10-17", "Statement": statements}
        return json.dumps(document, separators=(",", ":"))


def _denial_after(ends_at: float) -> dict[str, Any]:
    end = datetime.fromtimestamp(int(ends_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    after = {"DateGreaterThanEquals": {"aws:CurrentTime": end}}
    return {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": after}
