from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.model import Agent, Allow, Deny, Grant
from broker.policy.engine import DEFAULT_LIFETIME, Entitlement, Policy
from tests.fakes.policies import CLOUD_SCOPE, SMALL, CloudScope, changed, identity, policy

NOW = 1_700_000_000
BOT_CLAIMS = {"repository_id": "123456", "ref": "refs/heads/main"}


def grant(**changes: Any) -> Grant:
    fields: dict[str, Any] = {
        "jti": "grant-1",
        "agent": "release-bot",
        "issuer": "https://issuer.example.com",
        "subject": "job",
        "scopes": ("stripe.read", "stripe.refund"),
        "issued_at": NOW,
        "expires_at": NOW + 600,
        "policy_version": "sha256:0",
        "client_id": "release-bot",
        **changes,
    }
    return Grant(**fields)


def entitled(
    requested: tuple[str, ...] = ("stripe.read",),
    claims: dict[str, Any] | None = None,
    text: str = SMALL,
    **asked: Any,
) -> Entitlement | Deny:
    options: dict[str, Any] = {"agent_hint": None, "ttl": None, "reason": None, **asked}
    return policy(text).entitle(identity(claims), requested, **options)


class TestAgentFor:
    def test_all_claims_of_one_trust_must_match(self) -> None:
        found = policy(SMALL).agent_for(identity(), None)
        assert found == Agent("release-bot", ("stripe.read", "stripe.refund"), 3600)

    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"repository_id": "123456"},
            {"ref": "refs/heads/main"},
            BOT_CLAIMS | {"ref": "refs/heads/other"},
            BOT_CLAIMS | {"repository_id": 123456},
            BOT_CLAIMS | {"ref": None},
            BOT_CLAIMS | {"ref": ["refs/heads/main"]},
            BOT_CLAIMS | {"repository_id": "123456 "},
        ],
        ids=repr,
    )
    def test_other_claims_are_nobody(self, claims: dict[str, Any]) -> None:
        found = policy(SMALL).agent_for(identity(claims), None)
        assert isinstance(found, Deny)
        assert found.rule == "trust"

    def test_another_source_with_these_claims_is_nobody(self) -> None:
        for source in ("laptop", "elsewhere"):
            stranger = identity(BOT_CLAIMS, source=source)
            assert isinstance(policy(SMALL).agent_for(stranger, None), Deny)

    def test_any_trust_will_do(self) -> None:
        text = changed(
            "    scopes: [stripe.read, stripe.refund]\n",
            "      - {source: actions, claims: {environment: [prod, staging]}}\n"
            "    scopes: [stripe.read, stripe.refund]\n",
        )
        found = policy(text).agent_for(identity({"environment": "staging"}), None)
        assert isinstance(found, Agent)

    def test_a_local_key_vouches_for_its_own_agent_alone(self) -> None:
        small = policy(SMALL)
        coder = identity({"sub": "coder"}, source="laptop", subject="coder")
        other = identity({"sub": "coder"}, source="laptop", subject="release-bot")
        assert isinstance(small.agent_for(coder, None), Agent)
        assert isinstance(small.agent_for(other, None), Deny)
        assert isinstance(small.agent_for(other, "coder"), Deny)

    def test_the_agent_asked_for_must_be_right(self) -> None:
        small = policy(SMALL)
        assert isinstance(small.agent_for(identity(), "release-bot"), Agent)
        for hint in ("coder", "nobody", "Release-Bot", ""):
            found = small.agent_for(identity(), hint)
            assert isinstance(found, Deny)
            assert found.rule == "trust"

    def test_one_of_several_must_be_named(self) -> None:
        twin = (
            "agents: {twin: {trust: [{source: actions, claims: {ref: refs/heads/main}}],"
            " scopes: [stripe.read]}}"
        )
        both = policy(SMALL, twin)
        found = both.agent_for(identity(), None)
        assert isinstance(found, Deny)
        assert "release-bot, twin" in found.reason
        assert isinstance(both.agent_for(identity(), "twin"), Agent)


class TestEntitle:
    def test_gives_what_was_asked_for(self) -> None:
        answer = entitled(("stripe.read",))
        assert isinstance(answer, Entitlement)
        assert (answer.agent.name, answer.scopes) == ("release-bot", ("stripe.read",))
        assert answer.claims == {}

    def test_repeats_count_once_and_order_stays(self) -> None:
        requested = ("stripe.refund", "stripe.read", "stripe.refund")
        answer = entitled(requested, reason="why")
        assert isinstance(answer, Entitlement)
        assert answer.scopes == ("stripe.refund", "stripe.read")

    @pytest.mark.parametrize(
        "requested",
        [
            (),
            ("stripe.write",),
            ("stripe.read", "stripe.write"),
            ("stripe.*",),
            ("",),
            ("*",),
            ("STRIPE.READ",),
        ],
    )
    def test_asking_for_more_is_refused_whole_and_told(self, requested: tuple[str, ...]) -> None:
        answer = entitled(requested)
        assert isinstance(answer, Deny)
        assert answer.rule == "scope"
        assert answer.allowed == ("stripe.read", "stripe.refund")

    def test_a_scope_of_other_agents_is_refused(self) -> None:
        coder = identity({"sub": "coder"}, source="laptop", subject="coder")
        answer = policy(SMALL).entitle(
            coder, ("stripe.refund",), agent_hint=None, ttl=None, reason="why"
        )
        assert isinstance(answer, Deny)
        assert answer.allowed == ("stripe.read",)

    def test_what_a_stranger_made_up_is_not_repeated(self) -> None:
        answer = entitled(("x\r\nSet-Cookie: a", "stripe.write"))
        assert isinstance(answer, Deny)
        assert answer.reason == "agent release-bot may not have stripe.write"
        only_noise = entitled(("<script>",))
        assert isinstance(only_noise, Deny)
        assert "script" not in only_noise.reason

    @pytest.mark.parametrize("reason", [None, "", "  \t"])
    def test_a_reason_is_given_where_a_scope_wants_one(self, reason: str | None) -> None:
        answer = entitled(("stripe.read", "stripe.refund"), reason=reason)
        assert isinstance(answer, Deny)
        assert answer.rule == "reason"
        assert "stripe.refund" in answer.reason
        assert isinstance(entitled(("stripe.read",), reason=reason), Entitlement)

    def test_trust_is_judged_first(self) -> None:
        answer = entitled((), claims={})
        assert isinstance(answer, Deny)
        assert answer.rule == "trust"

    @pytest.mark.parametrize(
        ("ttl", "scopes", "lifetime"),
        [
            (None, ("stripe.read",), DEFAULT_LIFETIME),
            (60, ("stripe.read",), 60),
            (3600, ("stripe.read",), 3600),
            (7200, ("stripe.read",), 3600),
            (None, ("stripe.refund",), 600),
            (3600, ("stripe.read", "stripe.refund"), 600),
            (30, ("stripe.refund",), 30),
        ],
    )
    def test_the_least_lifetime_counts(
        self, ttl: int | None, scopes: tuple[str, ...], lifetime: int
    ) -> None:
        answer = entitled(scopes, ttl=ttl, reason="why")
        assert isinstance(answer, Entitlement)
        assert answer.lifetime == lifetime

    def test_without_its_own_limit_an_agent_has_the_default(self) -> None:
        coder = identity({"sub": "coder"}, source="laptop", subject="coder")
        answer = policy(SMALL).entitle(
            coder, ("stripe.read",), agent_hint=None, ttl=36_000, reason=None
        )
        assert isinstance(answer, Entitlement)
        assert answer.lifetime == DEFAULT_LIFETIME

    @pytest.mark.parametrize("ttl", [0, -1])
    def test_no_lifetime_is_no_entitlement(self, ttl: int) -> None:
        answer = entitled(ttl=ttl)
        assert isinstance(answer, Deny)
        assert answer.rule == "lifetime"

    def test_the_providers_maximum_counts(self) -> None:
        text = changed("scopes: [stripe.read]", "scopes: [cloud.use]\n    max_ttl: 1h")
        coder = identity({"sub": "coder"}, source="laptop", subject="coder")
        answer = policy(text, CLOUD_SCOPE).entitle(
            coder, ("cloud.use",), agent_hint=None, ttl=3600, reason=None
        )
        assert isinstance(answer, Entitlement)
        assert answer.lifetime == 600


class TestNarrow:
    @pytest.mark.parametrize(
        ("parent", "requested", "rule"),
        [
            ({"scopes": ("stripe.read",)}, ("stripe.refund",), "scope"),
            ({}, (), "scope"),
            ({}, ("stripe.write",), "scope"),
            ({"agent": "gone"}, ("stripe.read",), "trust"),
            ({"scopes": ("gone",)}, ("gone",), "scope"),
            ({"expires_at": NOW}, ("stripe.read",), "lifetime"),
            ({"expires_at": NOW - 5}, ("stripe.read",), "lifetime"),
        ],
    )
    def test_gives_nothing_that_the_parent_has_not(
        self, parent: dict[str, Any], requested: tuple[str, ...], rule: str
    ) -> None:
        answer = policy(SMALL).narrow(
            grant(**parent), requested, actor=None, ttl=None, reason="why", now=NOW
        )
        assert isinstance(answer, Deny)
        assert answer.rule == rule

    def test_ends_no_later_than_the_parent(self) -> None:
        answer = policy(SMALL).narrow(
            grant(expires_at=NOW + 45), ("stripe.read",), actor=None, ttl=900, reason=None, now=NOW
        )
        assert isinstance(answer, Entitlement)
        assert answer.lifetime == 45

    def test_an_actor_must_have_each_scope_too(self) -> None:
        small = policy(SMALL)
        coder = small.agents["coder"]
        options: dict[str, Any] = {"actor": coder, "ttl": None, "reason": "why", "now": NOW}
        assert isinstance(small.narrow(grant(), ("stripe.read",), **options), Entitlement)
        answer = small.narrow(grant(), ("stripe.refund",), **options)
        assert isinstance(answer, Deny)
        assert answer.allowed == ("stripe.read",)


TEMPLATED = CLOUD_SCOPE + (
    '    repositories: ["{claims.repository}", acme/docs]\n'
    '    tags: {who: "{agent}", grant: "{grant.jti}"}\n'
)
HOLDER = changed("[stripe.read, stripe.refund]", "[stripe.read, stripe.refund, cloud.use]")


class TestConstraints:
    def granted(self, claims: dict[str, Any]) -> tuple[Policy, Entitlement | Deny]:
        both = policy(HOLDER, TEMPLATED)
        answer = both.entitle(
            identity(BOT_CLAIMS | claims), ("cloud.use",), agent_hint=None, ttl=None, reason=None
        )
        return both, answer

    def test_only_the_claims_that_templates_need_are_kept(self) -> None:
        _, answer = self.granted({"repository": "acme/shop", "actor": "mallory"})
        assert isinstance(answer, Entitlement)
        assert answer.claims == {"repository": "acme/shop"}

    def test_are_filled_in_for_a_grant(self) -> None:
        both, answer = self.granted({"repository": "acme/shop"})
        assert isinstance(answer, Entitlement)
        constraints = both.constraints("cloud.use", grant(claims=answer.claims, jti="j-1"))
        assert isinstance(constraints, CloudScope)
        assert constraints.repositories == ("acme/shop", "acme/docs")
        assert constraints.tags == {"who": "release-bot", "grant": "j-1"}

    @pytest.mark.parametrize(
        "value",
        [None, "", "*", "acme/*", "acme/shop,acme/other", "${x}", "{agent}", "a b",
         "acme/sh\u00f6p",
         "acme/shop\n", "acme/../other", "..", "x" * 257, True, ["acme/shop"], {"a": "b"}, 1.5],
        ids=repr,
    )  # fmt: skip
    def test_a_value_that_may_not_stand_there_is_a_denial(self, value: Any) -> None:
        both, answer = self.granted({} if value is None else {"repository": value})
        assert isinstance(answer, Deny)
        assert answer.rule == "template"
        later = both.constraints("cloud.use", grant(claims={"repository": value}))
        assert isinstance(later, Deny)
        assert later.rule == "template"
        if isinstance(value, str) and len(value) > 3:
            assert value not in later.reason

    def test_without_templates_are_what_was_loaded(self) -> None:
        both = policy(HOLDER, CLOUD_SCOPE)
        assert both.constraints("cloud.use", grant()) is both.scopes["cloud.use"].constraints


class TestAuthorizer:
    def test_takes_the_scopes_of_its_service_alone(self) -> None:
        other = (
            "services: {other: {provider: http_api, base_url: 'https://other.example.com',"
            " credential: {type: bearer, secret: 'env:OTHER'}}}\n"
            "scopes: {other.all: {service: other, allow: ['* /**']}}"
        )
        authorizer = policy(SMALL, other).authorizer(("stripe.read", "other.all"), "stripe")
        assert isinstance(authorizer.judge(b"GET", b"/v1/charges", b""), Allow)
        assert isinstance(authorizer.judge(b"POST", b"/v1/charges", b""), Deny)

    def test_a_scope_that_is_gone_allows_nothing(self) -> None:
        authorizer = policy(SMALL).authorizer(("gone",), "stripe")
        assert isinstance(authorizer.judge(b"GET", b"/v1/charges", b""), Deny)

    def test_a_scope_that_is_only_handed_out_allows_nothing(self) -> None:
        authorizer = policy(HOLDER, CLOUD_SCOPE).authorizer(("cloud.use",), "cloud")
        assert isinstance(authorizer.judge(b"GET", b"/", b""), Deny)

    def test_is_compiled_once_and_the_cache_is_bounded(self) -> None:
        small = policy(SMALL)
        first = small.authorizer(("stripe.read",), "stripe")
        assert small.authorizer(("stripe.read",), "stripe") is first
        for index in range(4100):
            small.authorizer((f"made.up{index}",), "stripe")
        assert small.authorizer(("stripe.read",), "stripe") is not first
        assert len(small._authorizers) < 100


def test_a_policy_cannot_be_changed() -> None:
    small = policy(SMALL)
    for mapping in (small.services, small.scopes, small.agents, small.identity_sources):
        with pytest.raises(TypeError):
            mapping["new"] = None  # type: ignore[index]


NAMES = ["s.a", "s.b", "s.c", "s.d"]
subsets = st.lists(st.sampled_from(NAMES), unique=True)
limits = st.none() | st.integers(1, 4000)


@st.composite
def random_policies(draw: st.DrawFn) -> dict[str, Any]:
    scopes: dict[str, Any] = {}
    for name in NAMES:
        scopes[name] = {"service": "s", "allow": ["GET /**"]}
        if (ttl := draw(limits)) is not None:
            scopes[name]["max_ttl"] = f"{ttl}s"
        if draw(st.booleans()):
            scopes[name]["reason"] = "required"
    agents: dict[str, Any] = {}
    for name in ("one", "two"):
        claims = draw(st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), min_size=1))
        agents[name] = {
            "trust": [{"source": "i", "claims": claims}],
            "scopes": draw(subsets.filter(bool)),
        }
        if (ttl := draw(limits)) is not None:
            agents[name]["max_ttl"] = f"{ttl}s"
    return {
        "identity_sources": {"i": {"type": "oidc", "issuer": "https://i.example.com"}},
        "services": {
            "s": {
                "provider": "http_api",
                "base_url": "https://s.example.com",
                "credential": {"type": "bearer", "secret": "env:S"},
            }
        },
        "scopes": scopes,
        "agents": agents,
    }


@given(
    random_policies(),
    st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12")),
    subsets,
    st.tuples(
        st.none() | st.integers(-1, 5000),
        st.sampled_from([None, "why"]),
        st.sampled_from([None, "one", "two"]),
    ),
)
def test_an_entitlement_is_never_wider_than_any_of_its_operands(
    declared: dict[str, Any],
    claims: dict[str, str],
    requested: list[str],
    asked: tuple[int | None, str | None, str | None],
) -> None:
    ttl, reason, hint = asked
    made = policy(json.dumps(declared))
    answer = made.entitle(
        identity(claims, source="i"), tuple(requested), agent_hint=hint, ttl=ttl, reason=reason
    )
    if isinstance(answer, Deny):
        return
    agent = declared["agents"][answer.agent.name]
    assert hint in {None, answer.agent.name}
    assert agent["trust"][0]["claims"].items() <= claims.items()
    assert set(answer.scopes) == set(requested)
    assert set(answer.scopes) <= set(agent["scopes"])
    said = [
        agent.get("max_ttl", "900s"),
        *(
            declared["scopes"][one].get("max_ttl", "900s")
            for one in answer.scopes
            if "max_ttl" in declared["scopes"][one]
        ),
    ]
    assert 0 < answer.lifetime <= min(int(one[:-1]) for one in said)
    assert answer.lifetime <= (DEFAULT_LIFETIME if ttl is None else ttl)
    if any(declared["scopes"][one].get("reason") for one in answer.scopes):
        assert reason is not None


@given(random_policies(), subsets.filter(bool), subsets, st.integers(-5, 5000))
def test_no_sequence_of_narrowing_widens_a_right(
    declared: dict[str, Any], first: list[str], second: list[str], left: int
) -> None:
    made = policy(json.dumps(declared))
    parent = grant(agent="one", scopes=tuple(first), expires_at=NOW + left)
    for actor in (None, made.agents["two"]):
        child = made.narrow(parent, tuple(second), actor=actor, ttl=None, reason="why", now=NOW)
        if isinstance(child, Deny):
            continue
        assert set(child.scopes) <= set(first) & set(declared["agents"]["one"]["scopes"])
        assert actor is None or set(child.scopes) <= set(actor.scopes)
        assert 0 < child.lifetime <= left


class TestCollectable:
    both = policy(
        HOLDER.replace("[stripe.read, stripe.refund, cloud.use]", "[stripe.read, cloud.use, why]"),
        CLOUD_SCOPE + "  why: {service: cloud, delivery: [credential, proxy], reason: required}\n",
    )
    held = ("stripe.read", "cloud.use", "why")

    def test_a_credential_that_the_grant_holds_and_policy_delivers(self) -> None:
        answer = self.both.collectable("cloud.use", grant(scopes=self.held))
        assert answer is self.both.scopes["cloud.use"].constraints

    @pytest.mark.parametrize(
        ("scope", "held", "rule"),
        [
            ("stripe.read", held, "delivery"),
            ("why", held, "reason"),
            ("cloud.use", ("stripe.read",), "scope"),
            ("nothing", ("nothing",), "scope"),
            ("cloud.*", held, "scope"),
            ("", held, "scope"),
        ],
    )
    def test_anything_else_is_denied(self, scope: str, held: tuple[str, ...], rule: str) -> None:
        answer = self.both.collectable(scope, grant(scopes=held))
        assert isinstance(answer, Deny)
        assert answer.rule == rule

    def test_a_denial_says_what_could_be_had(self) -> None:
        answer = self.both.collectable("stripe.read", grant(scopes=("stripe.read", "cloud.use")))
        assert isinstance(answer, Deny)
        assert (answer.allowed, answer.scopes) == (("cloud.use",), ("cloud.use", "why"))

    def test_with_a_reason_what_needs_one_is_given(self) -> None:
        given = grant(scopes=self.held, reason="the release is stuck")
        assert not isinstance(self.both.collectable("why", given), Deny)

    def test_what_a_template_cannot_be_filled_with_is_denied(self) -> None:
        both = policy(HOLDER, TEMPLATED)
        answer = both.collectable(
            "cloud.use", grant(scopes=("cloud.use",), claims={"repository": "a b"})
        )
        assert isinstance(answer, Deny)
        assert answer.rule == "template"
