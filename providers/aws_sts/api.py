"""Which API of AWS a service's requests go to when the gateway makes them.

The host comes of the policy alone: of the region and the API's name there, or written out. No
agent has a say in it.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, model_validator

from providers.aws_sts.model import ENDPOINT, REGION, Model, domain_of
from providers.base import Upstream

_NAME: Final = r"^[a-z][a-z0-9-]{0,40}(?:\.[a-z][a-z0-9-]{0,40}){0,2}$"
_SIGNED_AS: Final = {
    "api.detective": "detective",
    "api.ecr": "ecr",
    "api.ecr-public": "ecr-public",
    "api.pricing": "pricing",
    "api.sagemaker": "sagemaker",
    "appconfigdata": "appconfig",
    "appstream2": "appstream",
    "bedrock-agent": "bedrock",
    "bedrock-agent-runtime": "bedrock",
    "bedrock-agentcore-control": "bedrock-agentcore",
    "bedrock-runtime": "bedrock",
    "data-ats.iot": "iotdata",
    "data.mediastore": "mediastore",
    "email": "ses",
    "featurestore-runtime.sagemaker": "sagemaker",
    "memory-db": "memorydb",
    "models-v2-lex": "lex",
    "pinpoint": "mobiletargeting",
    "query.timestream": "timestream",
    "ingest.timestream": "timestream",
    "runtime-v2-lex": "lex",
    "runtime.lex": "lex",
    "runtime.sagemaker": "sagemaker",
    "s3-control": "s3",
    "streams.dynamodb": "dynamodb",
}
"""Names in hosts that differ from those in signatures; of others, `signing_name` says it."""

_GLOBAL: Final = frozenset({"cloudfront", "iam", "route53"})
"""APIs of which there is one for all regions of AWS's first partition, in us-east-1."""

_UNSUPPORTED: Final = {
    "s3express": "opens sessions of its own, which the gateway does not",
    "sdb": "knows signatures of version 2 alone",
}


class Api(Model):
    """Where the gateway sends a service's requests, and how it signs them.

    `service` is the API's name as it stands in AWS's hosts (`s3`, `dynamodb`, `api.ecr`).
    `base_url` is a host of one's own: a VPC endpoint, one bucket, another vendor's S3.
    `signing_name` and `signing_region` are for what signs under other names than those.
    """

    service: Annotated[str, Field(pattern=_NAME)]
    base_url: Annotated[str, Field(pattern=ENDPOINT)] | None = None
    signing_name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,40}$")] | None = None
    signing_region: Annotated[str, Field(pattern=REGION)] | None = None
    signature: Literal["header", "query"] = "header"
    scrub: Literal["on", "off", True, False] = "on"
    allow_private: StrictBool = False
    insecure_http: StrictBool = False
    ca_file: Annotated[str, Field(pattern=r"^/[ -~]+$")] | None = None

    @model_validator(mode="after")
    def _check(self) -> Api:
        unfit = _UNSUPPORTED.get(self.signing_name or self.service)
        if unfit is not None:
            raise ValueError(f"service: {self.service} {unfit}; deliver sessions of it instead")
        if not self.tls and not self.insecure_http:
            raise ValueError(
                "base_url is plain http, over which anybody could read what is asked and answered; "
                "use https, or say insecure_http: true"
            )
        return self

    @property
    def name_to_sign(self) -> str:
        """Return the service's name as it stands in signatures."""
        return self.signing_name or _SIGNED_AS.get(self.service, self.service)

    @property
    def tls(self) -> bool:
        """Tell whether the API is reached over TLS."""
        return self.base_url is None or self.base_url.startswith("https:")

    def region_to_sign(self, region: str) -> str:
        """Return the region that stands in signatures, of a service in `region`."""
        if self.signing_region is not None:
            return self.signing_region
        return "us-east-1" if self._is_global(region) else region

    def upstream(self, region: str, ca_file: str | None) -> Upstream:
        """Return where requests go; `ca_file` is the service's, where this has none."""
        host = f"{self.service}.{region}.{domain_of(region)}"
        if self._is_global(region):
            host = f"{self.service}.amazonaws.com"
        scheme, _, place = (self.base_url or f"https://{host}").partition("://")
        name, _, port = place.partition(":")
        return Upstream(
            scheme="https" if scheme == "https" else "http",
            host=name,
            port=int(port) if port else {"https": 443, "http": 80}[scheme],
            allow_private=self.allow_private,
            insecure_http=self.insecure_http,
            scrub=self.scrub in {"on", True},
            ca_file=(self.ca_file or ca_file) if scheme == "https" else None,
        )

    def _is_global(self, region: str) -> bool:
        return (
            self.service in _GLOBAL
            and domain_of(region) == "amazonaws.com"
            and not (region.startswith("us-gov-"))
        )
