"""Deny sessions that cannot be revoked: an inline policy on their role, by source identity.

Each session carries its grant's id as source identity, and so does every session that it opens.
The policy says until when each of its statements is needed, so that whoever writes it next can
leave out what has expired, on whichever machine. It is written by a person with rights of their
own: the broker's identity must not be able to change what roles may do.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from providers.base import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_iam import IAMClient

    from providers.aws_sts.fields import AwsStsService

POLICY_NAME: Final = "agent-token-broker-deny"

ROOM: Final = 10_240
"""Characters that AWS gives all inline policies of a role together, without white space."""

_HOUR: Final = 3600
_SID: Final = re.compile(r"AgentTokenBrokerUntil([0-9]{10,12})")
_GRANT: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
_RIGHTS: Final = "iam:GetRole, iam:GetRolePolicy, iam:PutRolePolicy and iam:DeleteRolePolicy on it"


class RoleDenial:
    """The denial of one role's sessions (`providers.denial.Denial`)."""

    def __init__(self, config: AwsStsService) -> None:
        self._role: Final = config.role_arn
        self._region: Final = config.region

    @property
    def place(self) -> str:
        """The role's ARN."""
        return self._role

    def document(self, grants: Mapping[str, float], now: float) -> str:
        """Return the policy that denies these grants; compact, as its size is bounded."""
        return _written(_merged({}, grants, now), self._role)

    def put(self, grants: Mapping[str, float], now: float) -> str:
        """Write the policy on the role; take it away where nobody needs it any more."""
        from botocore import exceptions  # noqa: PLC0415 - see session._open

        try:
            return self._put(_client(self._region), grants, now)
        except exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            code = code if _CODE.fullmatch(code) else "unknown"
            advice = f"; it takes {_RIGHTS}" if code == "AccessDenied" else ""
            raise ProviderError(f"AWS IAM refused ({code}){advice}", code=code) from None
        except (exceptions.BotoCoreError, OSError) as error:
            raise ProviderError(
                f"AWS IAM cannot be asked ({type(error).__name__}); sign in to AWS (AWS_PROFILE) "
                f"as somebody who has {_RIGHTS}"
            ) from None

    def _put(self, iam: IAMClient, grants: Mapping[str, float], now: float) -> str:
        name = self._role.rpartition("/")[2]
        found = iam.get_role(RoleName=name)["Role"]["Arn"]
        if found != self._role:
            # A role of the same name in another account must not be denied instead.
            raise ProviderError(f"you are signed in where {name} is {found}, not {self._role}")
        standing = _standing(iam, name)
        merged = _merged(standing, grants, now)
        if not merged:
            if standing:
                iam.delete_role_policy(RoleName=name, PolicyName=POLICY_NAME)
                return "nobody is denied there any more; the policy was taken away"
            return "nobody is denied there"
        iam.put_role_policy(
            RoleName=name, PolicyName=POLICY_NAME, PolicyDocument=_written(merged, self._role)
        )
        denied = sum(map(len, merged.values()))
        return f"{denied} grant(s) are denied there, the last for {max(merged) - now:.0f}s"


Standing = dict[int, frozenset[str]]
"""The grants that are denied, by the hour until which they have to be."""


def _merged(standing: Standing, grants: Mapping[str, float], now: float) -> Standing:
    """Return what has to be denied from now on; each grant once, for as long as any needs it."""
    until = {grant: hour for hour, known in sorted(standing.items()) for grant in known}
    for grant, expires_at in grants.items():
        if not _GRANT.fullmatch(grant):
            raise ProviderError("a grant's id can be no AWS source identity")
        hour = -(-int(expires_at + 1) // _HOUR) * _HOUR
        until[grant] = max(hour, until.get(grant, 0))
    hours = {hour for hour in until.values() if hour > now}
    return {
        hour: frozenset(grant for grant, its in until.items() if its == hour)
        for hour in sorted(hours)
    }


def _written(standing: Standing, role: str) -> str:
    statements = [
        {
            "Sid": f"AgentTokenBrokerUntil{hour}",
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:SourceIdentity": sorted(grants)}},
        }
        for hour, grants in standing.items()
    ]
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    if len(text) > ROOM:
        raise ProviderError(
            f"to deny {sum(map(len, standing.values()))} grants by name takes {len(text)} "
            f"characters, and AWS gives a role {ROOM}; deny all of the role's sessions that are "
            f"older instead (in AWS's console: {role}, Revoke sessions)"
        )
    return text


def _standing(iam: IAMClient, role: str) -> Standing:
    """Return what the role's policy denies by now; refuse to touch one that is not ours."""
    try:
        document: Any = iam.get_role_policy(RoleName=role, PolicyName=POLICY_NAME)["PolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return {}
    try:
        return dict(_hour(one) for one in document["Statement"])
    except (KeyError, TypeError, ValueError):
        raise ProviderError(
            f"the policy {POLICY_NAME} of {role} holds what this has not written; look at it, and "
            "give it another name if it is to stay"
        ) from None


def _hour(statement: Any) -> tuple[int, frozenset[str]]:
    match = _SID.fullmatch(statement["Sid"])
    ((operator, condition),) = statement["Condition"].items()
    grants = condition["aws:SourceIdentity"]
    grants = [grants] if isinstance(grants, str) else grants
    ours = (statement["Effect"], statement["Action"], operator) == ("Deny", "*", "StringEquals")
    if match is None or not ours or len(condition) != 1 or not all(map(_GRANT.fullmatch, grants)):
        raise ValueError
    return int(match[1]), frozenset(grants)


def _client(region: str) -> IAMClient:
    """Return a client with the credentials of whoever runs this."""
    import boto3  # noqa: PLC0415 - see session._open

    return boto3.Session().client("iam", region_name=region)
