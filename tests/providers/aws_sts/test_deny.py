"""The denial of sessions that cannot be revoked, as a policy that really stands on a role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.aws_sts import PLUGIN
from providers.aws_sts.deny import POLICY_NAME, ROOM, RoleDenial
from providers.base import ProviderError
from tests.components.moto import ACCOUNT, REGION

if TYPE_CHECKING:
    from tests.components.moto import Moto, User

NOW: Final = 1_750_000_000.0
HOUR: Final = 3600
GRANTS: Final = st.from_regex(r"[A-Za-z0-9_-]{2,30}", fullmatch=True)


def denial(role: str = f"arn:aws:iam::{ACCOUNT}:role/agent-task") -> RoleDenial:
    return RoleDenial(PLUGIN.service_model.model_validate({"role_arn": role, "region": REGION}))


def denied(document: str | dict[str, Any]) -> dict[str, int]:
    """Return until when a policy denies which source identities, by IAM's own words."""
    read = json.loads(document) if isinstance(document, str) else document
    found = {}
    for statement in read["Statement"]:
        assert (statement["Effect"], statement["Action"], statement["Resource"]) == (
            "Deny",
            "*",
            "*",
        )
        (identities,) = statement["Condition"]["StringEquals"].values()
        assert list(statement["Condition"]) == ["StringEquals"]
        assert list(statement["Condition"]["StringEquals"]) == ["aws:SourceIdentity"]
        for one in identities:
            assert one not in found
            found[one] = int(statement["Sid"].removeprefix("AgentTokenBrokerUntil"))
    return found


class TestDocument:
    def test_it_denies_everything_to_these_grants_alone(self) -> None:
        text = denial().document({"grant-a": NOW + 900, "grant-b": NOW + HOUR}, NOW)
        assert " " not in text
        assert set(denied(text)) == {"grant-a", "grant-b"}
        assert all(until > NOW + 900 for until in denied(text).values())

    def test_what_has_expired_is_denied_no_more(self) -> None:
        assert denied(denial().document({"old": NOW - HOUR, "new": NOW + 1}, NOW)).keys() == {"new"}

    @pytest.mark.parametrize("grant", ["a", "a b", "x" * 65, "*", 'a"]', "${aws:username}", ""])
    def test_what_is_no_source_identity_is_refused(self, grant: str) -> None:
        with pytest.raises(ProviderError, match="source identity"):
            denial().document({grant: NOW + 900}, NOW)

    def test_what_has_no_room_is_told_with_what_to_do_instead(self) -> None:
        grants = {f"grant-{number:016d}": NOW + 900 for number in range(600)}
        with pytest.raises(ProviderError, match=f"AWS gives a role {ROOM}") as caught:
            denial().document(grants, NOW)
        assert "Revoke sessions" in str(caught.value)
        few = dict(list(grants.items())[:300])
        assert len(denial().document(few, NOW)) <= ROOM

    @given(
        st.dictionaries(
            st.from_regex(r"[A-Za-z0-9_-]{2,30}", fullmatch=True),
            st.integers(-9000, 43_200),
            max_size=20,
        )
    )
    def test_each_is_denied_until_after_its_last_session(self, ends: dict[str, int]) -> None:
        grants = {grant: NOW + end for grant, end in ends.items()}
        found = denied(denial().document(grants, NOW))
        for grant, end in grants.items():
            if end > NOW:
                assert end < found[grant] <= end + HOUR + 1
            elif grant in found:
                assert found[grant] > NOW


def operator(moto: Moto, patch: pytest.MonkeyPatch, *actions: str) -> User:
    """Sign in as a person who may do these, as AWS's own tools would be."""
    user = moto.user(*actions)
    for name, value in {
        "AWS_ENDPOINT_URL_IAM": moto.url,
        "AWS_ACCESS_KEY_ID": user.key.id,
        "AWS_SECRET_ACCESS_KEY": user.key.secret,
    }.items():
        patch.setenv(name, value)
    patch.delenv("AWS_SESSION_TOKEN", raising=False)
    return user


class TestOnARole:
    def standing(self, moto: Moto, role: str) -> dict[str, int] | None:
        iam, name = moto.iam(), role.rpartition("/")[2]
        if POLICY_NAME not in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            return None
        found: Any = iam.get_role_policy(RoleName=name, PolicyName=POLICY_NAME)
        return denied(found["PolicyDocument"])

    def test_it_stands_there_beside_what_is_still_needed(
        self, moto: Moto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator(moto, monkeypatch, "iam:*")
        role = moto.role("*", {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
        first = denial(role).put({"grant-a": NOW + 900}, NOW)
        assert "1 grant(s) are denied" in first
        assert set(self.standing(moto, role) or ()) == {"grant-a"}
        denial(role).put({"grant-b": NOW + 4 * HOUR}, NOW + 60)
        assert set(self.standing(moto, role) or ()) == {"grant-a", "grant-b"}
        # Another time for one that is denied already: it stays as long as either needs it.
        denial(role).put({"grant-b": NOW + 900}, NOW + 120)
        assert (self.standing(moto, role) or {})["grant-b"] > NOW + 4 * HOUR
        denial(role).put({"grant-c": NOW + 5 * HOUR}, NOW + 3 * HOUR)
        assert set(self.standing(moto, role) or ()) == {"grant-b", "grant-c"}
        told = denial(role).put({}, NOW + 9 * HOUR)
        assert "taken away" in told
        assert self.standing(moto, role) is None
        assert denial(role).put({}, NOW) == "nobody is denied there"
        assert moto.iam().list_role_policies(RoleName=role.rpartition("/")[2])["PolicyNames"] == [
            "own"
        ]

    def test_what_somebody_else_has_written_is_left_alone(
        self, moto: Moto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator(moto, monkeypatch, "iam:*")
        role = moto.role("*")
        foreign = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Sid": "Mine", "Effect": "Deny", "Action": "*", "Resource": "*"}],
            }
        )
        name = role.rpartition("/")[2]
        moto.iam().put_role_policy(RoleName=name, PolicyName=POLICY_NAME, PolicyDocument=foreign)
        with pytest.raises(ProviderError, match="this has not written"):
            denial(role).put({"grant-a": NOW + 900}, NOW)

    def test_a_role_of_the_same_name_elsewhere_is_not_denied_instead(
        self, moto: Moto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator(moto, monkeypatch, "iam:*")
        here = moto.role("*")
        elsewhere = here.replace(ACCOUNT, "210987654321")
        with pytest.raises(ProviderError, match="you are signed in where"):
            denial(elsewhere).put({"grant-a": NOW + 900}, NOW)
        assert self.standing(moto, here) is None

    def test_who_may_not_is_told_which_rights_it_takes(
        self, moto: Moto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator(moto, monkeypatch, "iam:GetRole")
        with pytest.raises(ProviderError, match="iam:PutRolePolicy") as caught:
            denial(moto.role("*")).put({"grant-a": NOW + 900}, NOW)
        assert caught.value.code == "AccessDenied"

    def test_who_is_not_signed_in_is_told_how(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        with pytest.raises(ProviderError, match="AWS_PROFILE"):
            denial().put({"grant-a": NOW + 900}, NOW)


def test_the_plugin_says_how_its_sessions_are_denied() -> None:
    config = PLUGIN.service_model.model_validate(
        {"role_arn": f"arn:aws:iam::{ACCOUNT}:role/x", "region": REGION}
    )
    assert PLUGIN.denial is not None
    assert PLUGIN.denial(config).place == f"arn:aws:iam::{ACCOUNT}:role/x"
