"""What a policy says of Google Cloud: which service account, as whom, and what of its rights."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from providers.base import Templated
from providers.bearer import BearerService, Model, SecretReference, Url

_ACCOUNT: Final = r"^[a-z](?:[a-z0-9-]{4,28}[a-z0-9])@[a-z0-9.-]{4,60}\.iam\.gserviceaccount\.com$"
_OAUTH_SCOPE: Final = r"^https://www\.googleapis\.com/auth/[a-z0-9._-]{1,100}$"
_PROVIDER: Final = (
    r"^//iam\.googleapis\.com/projects/[0-9]{1,20}/locations/global/"
    r"workloadIdentityPools/[a-z0-9-]{4,32}/providers/[a-z0-9-]{4,32}$"
)
_RESOURCE: Final = r"^//[a-z0-9.-]+\.googleapis\.com/[!-~]{1,1024}$"
_PERMISSION: Final = (
    r"^inRole:(?:roles|(?:projects|organizations)/[a-z0-9:.-]{1,64}/roles)/[A-Za-z0-9._]{1,64}$"
)


class ServiceAccountKey(Model):
    """A service account's key, as the JSON file that Google makes of it."""

    type: Literal["service_account_key"]
    key: SecretReference


class Federated(Model):
    """The token of an issuer that a workload identity pool trusts, in a file that others renew.

    `audience` is the pool's provider: `//iam.googleapis.com/projects/.../providers/...`.
    """

    type: Literal["federated"]
    audience: Annotated[str, Field(pattern=_PROVIDER)]
    token_file: Annotated[str, Field(pattern=r"^/[ -~]+$")]


class GcpService(BearerService):
    """The fields of a service of this kind: an API, and the service account that calls it.

    The broker, as `credentials` say, makes tokens of `service_account`, for which it needs the
    role roles/iam.serviceAccountTokenCreator there. The URLs are Google's own unless others are
    named.
    """

    URLS: ClassVar[tuple[str, ...]] = ("base_url", "iam_url", "sts_url", "token_url")

    service_account: Annotated[str, Field(pattern=_ACCOUNT)]
    credentials: Annotated[ServiceAccountKey | Federated, Field(discriminator="type")]
    iam_url: Url = "https://iamcredentials.googleapis.com"
    sts_url: Url = "https://sts.googleapis.com"
    token_url: Url = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


class BoundaryRule(Model):
    """What may be done with one resource at most: a rule of a Credential Access Boundary.

    `permissions` are roles (`inRole:roles/storage.objectViewer`); `condition` is a CEL expression.
    https://cloud.google.com/iam/docs/downscoping-short-lived-credentials
    """

    resource: Annotated[str, Templated(), Field(pattern=_RESOURCE)]
    permissions: Annotated[
        tuple[Annotated[str, Field(pattern=_PERMISSION)], ...],
        Field(min_length=1, max_length=10),
    ]
    condition: Annotated[str, Templated(), Field(pattern=r"^[ -~]{1,2048}$")] | None = None


class GcpScope(Model):
    """The fields of a scope of this kind: what its tokens may do of what the account may.

    `access_boundary` is what Cloud Storage knows; for other APIs, which do not, say
    `full_service_account: true` and use an account for each kind of task.
    """

    oauth_scopes: Annotated[
        tuple[Annotated[str, Field(pattern=_OAUTH_SCOPE)], ...],
        Field(min_length=1, max_length=20),
    ]
    access_boundary: (
        Annotated[tuple[BoundaryRule, ...], Field(min_length=1, max_length=10)] | None
    ) = None
    full_service_account: Literal[True] | None = None

    @model_validator(mode="after")
    def _check(self) -> GcpScope:
        if (self.access_boundary is None) == (self.full_service_account is None):
            raise ValueError(
                "give access_boundary, which narrows what its tokens may do; or, where the API "
                "knows none, full_service_account: true"
            )
        return self


def secret_references(config: GcpService) -> tuple[str, ...]:
    """Return what the broker reads for a service."""
    own = config.credentials
    return (own.key,) if isinstance(own, ServiceAccountKey) else ()
