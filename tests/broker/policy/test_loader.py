from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import ConfigurationError, PolicyError
from broker.policy.loader import Document, find_problems, load_policy
from broker.policy.source import read
from tests.fakes.policies import PLUGINS, SMALL, changed, policy, problems


def test_loads_what_is_declared() -> None:
    small = policy(SMALL)
    assert set(small.identity_sources) == {"actions", "laptop"}
    assert small.services["stripe"].provider == "http_api"
    assert small.services["stripe"].upstream is not None
    assert small.services["stripe"].upstream.host == "api.stripe.com"
    refund = small.scopes["stripe.refund"]
    assert refund.allow == ("GET /v1/charges/*", "POST /v1/refunds")
    assert refund.deny == ("* /v1/refunds/*/cancel",)
    assert (refund.max_ttl, refund.reason_required, refund.risk) == (600, True, "high")
    assert refund.delivery == frozenset({"proxy"})
    assert small.agents["coder"].scopes == ("stripe.read",)


def test_nothing_declared_allows_nothing() -> None:
    empty = policy()
    assert not empty.agents
    assert policy("# later\n").version == empty.version
    assert policy("agents:\nscopes: {}\n").version == empty.version


def test_uses_the_installed_providers_by_default() -> None:
    assert load_policy([Document("a.yaml", SMALL)]).services["stripe"].provider == "http_api"


def test_entries_may_stand_in_any_document() -> None:
    sections = SMALL.split("scopes:\n", 1)
    assert policy(sections[0], "scopes:\n" + sections[1]).version == policy(SMALL).version


# What is wrong in the small policy after one change, word for word.
MISTAKES = [
    (
        ("    risk: high", "    body: {json: {a: []}}"),
        [
            ("0.yaml:22:11: scope 'stripe.refund', body: json.a: an empty list matches nothing; "
            "list at least one value")
        ],
    ),
    (
        ("    risk: high", "    body: {json: {a: 1}, jsn: {b: 2}}"),
        [
            ("0.yaml:22:11: scope 'stripe.refund', body: jsn is not known; write json:, form:, "
            "max_bytes:")
        ],
    ),
    (
        ("    risk: high", "    websocket: true\n    body: {json: {a: 1}}"),
        [
            ("0.yaml:23:5: scope 'stripe.refund': 'body' says nothing of what is sent through a "
            "websocket; make two scopes")
        ],
    ),
    (
        ("services:", "service:"),
        [
            "0.yaml:7:1: unknown section 'service'; did you mean 'services'?",
            "0.yaml:14:14: scope 'stripe.read': unknown service 'stripe'; there are none",
            "0.yaml:17:14: scope 'stripe.refund': unknown service 'stripe'; there are none",
        ],
    ),
    (
        ("provider: http_api", "provider: http_ap"),
        ["0.yaml:9:15: service 'stripe': unknown provider 'http_ap'; did you mean 'http_api'?"],
    ),
    (
        ("    provider: http_api\n", ""),
        ["0.yaml:9:5: service 'stripe': field 'provider' is missing"],
    ),
    (
        ("base_url: ", "base_ur: "),
        [
            "0.yaml:9:5: service 'stripe': field 'base_url' is missing",
            "0.yaml:10:5: service 'stripe': unknown field 'base_ur'; did you mean 'base_url'?",
        ],
    ),
    (
        ("type: bearer", "type: baerer"),
        [
            ("0.yaml:11:24: service 'stripe', credential: 'type' must be one of 'bearer', 'basic', "
            "'header', 'query', 'cookie', 'template'; did you mean 'bearer'?")
        ],
    ),
    (
        ("vault:kv", "vualt:kv"),
        [
            ("0.yaml:11:40: service 'stripe': not a secret reference; did you mean 'vault'?; write "
            "one of vault:<mount>/<path>#<field>, embedded:<name>, env:<NAME>, file:<path>")
        ],
    ),
    (
        ('    allow: ["GET /v1/**"]\n', ""),
        [
            ("0.yaml:13:3: scope 'stripe.read': field 'allow' is missing; to mean everything, "
            'write allow: ["* /**"]')
        ],
    ),
    (
        ('allow: ["GET /v1/**"]', "allow: []"),
        [
            ("0.yaml:15:12: scope 'stripe.read', allow: an empty list or mapping says nothing; "
            "leave it out or fill it")
        ],
    ),
    (
        ('allow: ["GET /v1/**"]', "allow:"),
        [
            ("0.yaml:13:3: scope 'stripe.read': field 'allow' is missing; to mean everything, "
            'write allow: ["* /**"]'),
            "0.yaml:15:11: scopes.stripe.read: no value; leave the field out or give it one",
        ],
    ),
    (
        ('allow: ["GET /v1/**"]', "allow: GET /v1/**"),
        ["0.yaml:15:12: scope 'stripe.read', allow: expected a list"],
    ),
    (
        ('allow: ["GET /v1/**"]', "alow: [GET /v1/**]"),
        [
            ("0.yaml:13:3: scope 'stripe.read': field 'allow' is missing; to mean everything, "
            'write allow: ["* /**"]'),
            "0.yaml:15:5: scope 'stripe.read': unknown field 'alow'; did you mean 'allow'?",
        ],
    ),
    (
        ('"POST /v1/refunds"]', '"post /v1/refunds"]'),
        [
            "0.yaml:18:34: scope 'stripe.refund', allow[1]: methods are upper case: write 'POST'",
        ],
    ),
    (
        ('"POST /v1/refunds"]', '"GET /v1/charges/*"]'),
        ["0.yaml:18:12: scope 'stripe.refund', allow: lists 'GET /v1/charges/*' twice"],
    ),
    (
        ("* /v1/refunds/*/cancel", "* /v1/Refunds/**"),
        [
            ("0.yaml:18:34: scope 'stripe.refund': 'POST /v1/refunds' can never allow anything: "
            "'* /v1/Refunds/**' denies it all")
        ],
    ),
    (
        ("max_ttl: 10m", "max_ttl: 10 minutes"),
        [
            ("0.yaml:20:14: scope 'stripe.refund', max_ttl: expected a duration such as \"30s\", "
            '"15m" or "1h"')
        ],
    ),
    (
        ("max_ttl: 10m", "max_ttl: 25h"),
        [
            ("0.yaml:20:14: scope 'stripe.refund', max_ttl: is more than a day (86400s), "
            "the most there is")
        ],
    ),
    (
        ("reason: required", "reason: requird"),
        [
            ("0.yaml:21:13: scope 'stripe.refund', reason: expected 'required' or 'optional'; "
            "did you mean 'required'?")
        ],
    ),
    (
        ("risk: high", "risk: low"),
        ["0.yaml:22:11: scope 'stripe.refund', risk: expected 'medium' or 'high'"],
    ),
    (
        ("risk: high", "delivery: [credential]"),
        [
            ("0.yaml:22:15: scope 'stripe.refund': provider 'http_api' has no delivery "
            "'credential': its credential is no short-lived one; write delivery: [proxy]")
        ],
    ),
    (
        ("risk: high", "websocket: yes please"),
        ["0.yaml:22:16: scope 'stripe.refund', websocket: expected true or false"],
    ),
    (
        ('allow: ["GET /v1/charges/*", "POST /v1/refunds"]',
         'allow: ["POST /v1/refunds"]\n    websocket: true'),
        [
            ("0.yaml:19:16: scope 'stripe.refund': a websocket is opened by GET, and no rule under "
            'allow is for GET; add one for its path, such as "GET /v1/realtime"')
        ],
    ),
    (
        ("risk: high", "tags: [a]"),
        [
            (
                "0.yaml:22:5: scope 'stripe.refund': unknown field 'tags'; there are allow, body, "
                "delivery, deny, description, limits, max_ttl, on_behalf, query, reason, "
                "registries, risk, service, websocket"
            )
        ],
    ),
    (
        ("risk: high", "query: {type: []}"),
        [
            ("0.yaml:22:12: scope 'stripe.refund', query: type: an empty list matches nothing; "
            "list at least one value")
        ],
    ),
    (
        ("- source: actions", "- source: action"),
        [
            ("0.yaml:26:17: agent 'release-bot': unknown identity source 'action'; "
            "did you mean 'actions'?")
        ],
    ),
    (
        ('        claims: {repository_id: "123456", ref: refs/heads/main}\n', ""),
        [
            ("0.yaml:26:9: agent 'release-bot': field 'claims' is missing: without it every "
            "identity of 'actions' would be this agent")
        ],
    ),
    (
        ('{repository_id: "123456", ref: refs/heads/main}', "{}"),
        [
            ("0.yaml:27:17: agent 'release-bot', trust[0].claims: an empty list or mapping says "
            "nothing; leave it out or fill it")
        ],
    ),
    (
        ('repository_id: "123456"', "repository_id: []"),
        [
            ("0.yaml:27:33: agent 'release-bot', trust[0].claims.repository_id: an empty list "
            "matches nothing; list at least one value")
        ],
    ),
    (
        ('repository_id: "123456"', "repository_id: {glob: main}"),
        [
            ("0.yaml:27:33: agent 'release-bot', trust[0].claims.repository_id: a glob without "
            "'*' is plain text: write it without 'glob:'")
        ],
    ),
    (
        ("[stripe.read, stripe.refund]", "[stripe.raed, stripe.refund]"),
        [
            ("0.yaml:28:14: agent 'release-bot': unknown scope 'stripe.raed'; "
            "did you mean 'stripe.read'?")
        ],
    ),
    (
        ("[stripe.read, stripe.refund]", "[stripe.read, stripe.read]"),
        ["0.yaml:28:13: agent 'release-bot', scopes: lists 'stripe.read' twice"],
    ),
    (
        ("[stripe.read, stripe.refund]", "[]"),
        [
            ("0.yaml:28:13: agent 'release-bot', scopes: an empty list or mapping says nothing; "
            "leave it out or fill it")
        ],
    ),
    (
        ("    scopes: [stripe.read, stripe.refund]\n", ""),
        ["0.yaml:25:5: agent 'release-bot': field 'scopes' is missing"],
    ),
    (
        ("  coder:", "  Coder:"),
        [
            ("0.yaml:30:3: agents: 'Coder' is not a name: up to 64 lower-case letters, digits, "
            "'.', '_' and '-', a letter or digit first and last")
        ],
    ),
    (
        ("{type: local}", "{type: locale}"),
        [
            ("0.yaml:6:18: identity source 'laptop': 'type' must be one of 'oidc', 'local'; "
            "did you mean 'local'?")
        ],
    ),
    (
        ("{type: local}", "{type: local, audiences: [x]}"),
        [
            ("0.yaml:6:25: identity source 'laptop': unknown field 'audiences'; "
            "there are description, type")
        ],
    ),
    (
        ("{type: local}", "[]"),
        ["0.yaml:6:11: identity source 'laptop': expected a mapping"],
    ),
    (
        ("audiences: [https://broker.example.com]", "audiences: [no]"),
        [
            ("0.yaml:5:17: YAML readers disagree on what 'no' is: put it in quotes if it is text, "
            "or write it as JSON would")
        ],
    ),
    (
        ("audiences: [https://broker.example.com]", "audiences: [7]"),
        [
            "0.yaml:5:17: identity source 'actions', audiences[0]: expected text; put it in quotes",
        ],
    ),
    (
        ("audiences: [https://broker.example.com]", "algorithms: [HS256]"),
        [
            ("0.yaml:5:18: identity source 'actions', algorithms[0]: expected 'RS256', 'RS384', "
            "'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512' or 'EdDSA'; "
            "did you mean 'RS256'?")
        ],
    ),
    (
        ("audiences: [https://broker.example.com]", "allow_extra_audiences: 1"),
        [
            ("0.yaml:5:28: identity source 'actions', allow_extra_audiences: "
            "expected true or false"),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), MISTAKES, ids=lambda value: str(value)[:50])
def test_says_what_is_wrong_where_and_what_to_write(
    change: tuple[str, str], expected: list[str]
) -> None:
    assert problems(changed(*change)) == expected


def test_tells_all_mistakes_of_all_documents_at_once_in_order() -> None:
    found = problems(
        changed("max_ttl: 1h", "max_ttl: 1y").replace("risk: high", "risk: hihg"),
        "scopes:\n  a.b: {service: strip, allow: [GET /x]}\n  c: 7\n",
        "agents: [",
    )
    assert [line.split(": ")[0] for line in found] == [
        "0.yaml:22:11",
        "0.yaml:29:14",
        "1.yaml:2:18",
        "1.yaml:3:6",
        "2.yaml:1:10" if found[-1].startswith("2.yaml:1") else "2.yaml:2:1",
    ]


def test_a_secret_in_the_wrong_place_is_never_repeated() -> None:
    secret = "sk_live_4242"
    for old in ("vault:kv/stripe#key", "bearer", "https://api.stripe.com", "10m", "required"):
        found = "\n".join(problems(changed(old, secret)))
        assert secret not in found
        assert "4242" not in found


def test_the_check_of_references_is_the_callers() -> None:
    def refuse(reference: str) -> None:
        raise ConfigurationError(f"no store for {reference.partition(':')[0]}")

    with pytest.raises(PolicyError, match=r"a\.yaml:11:40: service 'stripe': no store for vault"):
        load_policy([Document("a.yaml", SMALL)], plugins=PLUGINS, check_reference=refuse)


class TestVersion:
    def test_is_a_digest(self) -> None:
        version = policy(SMALL).version
        assert version.startswith("sha256:")
        assert len(version) == 7 + 64

    def test_layout_comments_order_and_files_make_no_difference(self) -> None:
        version = policy(SMALL).version
        data = _data(SMALL)
        parts = [json.dumps({section: body}) for section, body in reversed(data.items())]
        assert policy(*parts).version == version
        assert policy("# a comment\n" + SMALL.replace("\n", "  # so\n\n")).version == version

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("10m", "11m"),
            ('"123456"', '"123457"'),
            ("GET /v1/**", "GET /v1/*"),
            ("api.stripe.com", "api.stripe.example"),
            ("    risk: high\n", ""),
        ],
    )
    def test_any_other_content_has_another(self, old: str, new: str) -> None:
        assert policy(changed(old, new)).version != policy(SMALL).version

    def test_text_and_number_differ(self) -> None:
        number = changed('repository_id: "123456"', "repository_id: 123456")
        assert policy(number).version != policy(SMALL).version


def _data(text: str) -> dict[str, Any]:
    (root,) = read(Document("a.yaml", text), [])
    data: dict[str, Any] = root.plain()
    return data


WORDS = st.sampled_from(
    ["identity_sources", "services", "scopes", "agents", "type", "oidc", "local", "issuer",
     "provider", "http_api", "cloud", "base_url", "credential", "bearer", "secret", "env:X",
     "service", "allow", "deny", "GET /**", "* /a/*", "trust", "source", "claims", "glob", "a*",
     "max_ttl", "15m", "delivery", "proxy", "query", "a", "b", "repositories", "{agent}", "{{",
     "https://a.example.com", "region", "eu-1", "key", "any", "reason", "required", ""]
)  # fmt: skip
VALUES = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        section: st.dictionaries(st.sampled_from(["a", "b", "c.d", "E"]), VALUES, max_size=3)
        for section in ("identity_sources", "services", "scopes", "agents")
    },
)


def outcome(texts: list[str]) -> list[str]:
    """Load the documents; whatever they hold, nothing but problems with places comes of it."""
    documents = [Document(f"{number}.yaml", text) for number, text in enumerate(texts)]
    try:
        loaded = load_policy(documents, plugins=PLUGINS)
    except PolicyError as error:
        return [f"{one.line > 0 and one.column > 0}: {one.message}" for one in error.problems]
    return [f"{one.line > 0}: {one.message}" for one in loaded.warnings] + ["True: loaded"]


@settings(max_examples=300)
@given(st.lists(SECTIONS | VALUES, max_size=2))
def test_anything_loads_or_is_refused(documents: list[Any]) -> None:
    told = outcome([json.dumps(data) for data in documents])
    assert told
    assert all(line.startswith("True: ") for line in told)


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused(text: str) -> None:
    assert all(line.startswith("True: ") for line in outcome([text]))


@given(st.integers(0, len(SMALL)), st.integers(0, len(SMALL)))
def test_a_mutilated_document_loads_or_is_refused(first: int, second: int) -> None:
    assert outcome([SMALL[:first] + SMALL[second:]])


class TestAssumedNames:
    """What is said of a policy some of whose entries cannot be told yet."""

    SCOPE = "scopes: {x.read: {service: later, allow: ['GET /**']}}"
    AGENT = (
        "agents: {a: {trust: [{source: later, claims: {sub: a}}], scopes: [x.read, later.read]}}"
    )

    def found(self, *texts: str, **assumed: str) -> list[str]:
        named = {section: frozenset([name]) for section, name in assumed.items()}
        documents = [Document(f"{number}.yaml", text) for number, text in enumerate(texts)]
        return [one.message for one in find_problems(documents, named, plugins=PLUGINS)]

    def test_without_them_they_are_missing(self) -> None:
        assert self.found(self.SCOPE) == ["scope 'x.read': unknown service 'later'; there are none"]
        assert len(self.found(self.SCOPE, self.AGENT)) == 3

    def test_names_that_are_assumed_can_be_referred_to(self) -> None:
        assumed = {"services": "later", "identity_sources": "later", "scopes": "later.read"}
        assert self.found(self.SCOPE, self.AGENT, **assumed) == []

    def test_what_every_scope_says_is_looked_at_all_the_same(self) -> None:
        wrong = self.SCOPE.replace("GET", "GOT")
        (problem,) = self.found(wrong, services="later")
        assert "'GOT' is not a method" in problem

    def test_an_entry_that_is_assumed_is_not_looked_at(self) -> None:
        broken = "services: {later: {provider: nothing}}"
        assert self.found(broken, self.SCOPE, services="later") == []
        assert self.found(broken) != []

    def test_a_name_that_is_near_to_an_assumed_one_is_told(self) -> None:
        (problem,) = self.found(self.SCOPE.replace("later", "latr"), services="later")
        assert "did you mean 'later'?" in problem
