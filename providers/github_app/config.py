"""What a policy says of a GitHub App: where it is installed, and what a scope may do there."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, model_validator

from providers.base import Templated, Upstream

Level = Literal["read", "write", "admin"]

RANK: Final[dict[Any, int]] = {"read": 1, "write": 2, "admin": 3}
"""How much each level of a permission lets a token do."""

PERMISSIONS: Final = {
    name: frozenset(levels.split())
    for levels, names in {
        "read write": """
            actions administration artifact_metadata attestations checks code_quality codespaces
            contents custom_properties_for_organizations dependabot_secrets deployments discussions
            email_addresses environments followers git_ssh_keys gpg_keys interaction_limits issues
            members merge_queues metadata organization_administration
            organization_announcement_banners organization_copilot_agent_settings
            organization_copilot_seat_management organization_custom_org_roles
            organization_custom_roles organization_hooks organization_packages
            organization_personal_access_token_requests organization_personal_access_tokens
            organization_secrets organization_self_hosted_runners organization_user_blocking
            packages pages pull_requests repository_custom_properties repository_hooks
            secret_scanning_alerts secrets security_events single_file starring statuses
            vulnerability_alerts""",
        "read write admin": """
            enterprise_custom_properties_for_organizations organization_custom_properties
            organization_projects repository_projects""",
        "read": "organization_events organization_plan",
        "write": "profile workflows",
    }.items()
    for name in names.split()
}
"""The permissions that a token can have, and their levels: `app-permissions` in GitHub's API."""

_MOST_REPOSITORIES: Final = 500
_REFERENCE: Final = r"^[a-z][a-z0-9_]*:[^\s\x00-\x1f]+$"
_OWNER: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
_NAME: Final = r"[A-Za-z0-9._-]{1,100}"
_URL: Final = (
    r"^https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(?::[0-9]{1,5})?(?:/[A-Za-z0-9_-]+)*$"
)


def _reference(value: str) -> str:
    if not re.fullmatch(_REFERENCE, value):
        raise ValueError(
            "expected a secret reference such as vault:kv/github-app#pem or embedded:github-app; "
            "a policy never holds the key itself"
        )
    return value


def _no_dots(value: str) -> str:
    if value.rpartition("/")[2] in {".", ".."}:
        raise ValueError("expected the name of a repository, and not a dot segment")
    return value


Number = Annotated[StrictInt, Field(gt=0, lt=1 << 53)]
Repository = Annotated[
    str,
    Templated("A-Za-z0-9._/-"),
    Field(pattern=rf"^(?:{_OWNER}/)?{_NAME}$"),
    AfterValidator(_no_dots),
]
_Listed = Field(min_length=1, max_length=_MOST_REPOSITORIES)


class _Model(BaseModel):
    # A secret pasted where a reference belongs must not come back in the error text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class GithubAppService(_Model):
    """The fields of a service of this kind: one installation of one App.

    `app_id` is the App's id or its client id. `installation` is the organisation or user that
    has installed it, one of its repositories as `owner/name`, or the installation's number.
    `base_url` is the API's: `https://HOST/api/v3` for a GitHub Enterprise Server.
    """

    app_id: Number | Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    private_key: Annotated[
        str, AfterValidator(_reference), Field(json_schema_extra={"pattern": _REFERENCE})
    ]
    installation: (
        Number
        | Annotated[str, Field(pattern=rf"^{_OWNER}(?:/{_NAME})?$"), AfterValidator(_no_dots)]
    )
    base_url: Annotated[str, Field(pattern=_URL)] = "https://api.github.com"
    allow_private: bool = False
    insecure_http: bool = False
    ca_file: Annotated[str, Field(pattern=r"^/")] | None = None

    @model_validator(mode="after")
    def _check(self) -> GithubAppService:
        if upstream(self).scheme == "http" and not self.insecure_http:
            raise ValueError(
                "base_url is plain http, over which no credential is sent; "
                "use https, or say insecure_http: true"
            )
        return self

    @property
    def owner(self) -> str | None:
        """The account that has the App installed, unless only the number is known."""
        return None if isinstance(self.installation, int) else self.installation.split("/")[0]


class GithubAppScope(_Model):
    """The fields of a scope of this kind: which repositories, and what may be done to them.

    `repositories` are names, or `owner/name` where the owner is the installation's.
    `repository_ids` stay right when a repository gets another name, and never mean another
    that gets its old one. Just one of the two is given.
    """

    repositories: Annotated[tuple[Repository, ...], _Listed] | None = None
    repository_ids: Annotated[tuple[Number, ...], _Listed] | None = None
    permissions: Annotated[dict[str, Level], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> GithubAppScope:
        if (self.repositories is None) == (self.repository_ids is None):
            raise ValueError(
                "give either repositories or repository_ids: without them GitHub would mean all"
            )
        for name, level in self.permissions.items():
            if name not in PERMISSIONS:
                near = get_close_matches(name, PERMISSIONS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"permissions: GitHub has no permission {name[:60]!r}{hint}")
            if level not in PERMISSIONS[name]:
                levels = " or ".join(sorted(PERMISSIONS[name], key=RANK.__getitem__))
                raise ValueError(f"permissions: {name} can be {levels}, and not {level}")
        return self


def upstream(config: GithubAppService) -> Upstream:
    """Return where the requests of a service go; raise `ValueError` for a port that is none."""
    parts = urlsplit(config.base_url)
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    return Upstream(
        scheme=scheme,
        host=parts.hostname or "",
        port=parts.port or (443 if scheme == "https" else 80),
        base_path=parts.path.encode(),
        allow_private=config.allow_private,
        insecure_http=config.insecure_http,
        ca_file=config.ca_file,
    )
