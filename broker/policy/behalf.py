"""Judge on whose behalf a request is: another user, account or tenant that a field names.

    on_behalf:
      Stripe-Account: acct_1                  # there, and equal
      X-Scope-OrgID: [team-a, team-b]         # there, and one of these
      Impersonate-User: {glob: "*@acme.com"}  # there, and like this
      Sudo: {any: true}                       # may be there, and anything

With the credential of an administrator or of a platform such a field opens what that other one has,
and no rule of paths can see it. So fields that are known for it pass only if the scope lists them;
what else it lists is held to the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.policy.query import OTHERS, parse_parameters
from broker.twins import twin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.policy.query import Parameter

    Named = tuple[tuple[bytes, bytes], ...]

_USERS: Final = re.compile(
    # Kubernetes, OpenSearch, Appwrite; SendGrid, Zendesk; Elasticsearch; DocuSign
    rb"impersonat|on-behalf-of|\brun-?as\b|\bact-as\b"
    # Box; Smartsheet; Redmine; Dropbox; Dataverse; GitLab
    rb"|\bas-user\Z|\Aassume-user\Z|\bswitch-user\Z|\bselect-(?:user|admin)\Z"
    rb"|\A(?:mscrmcallerid|callerobjectid|sudo)\Z"
)
_TENANTS: Final = frozenset(
    {b"stripe-account", b"stripe-context", b"paypal-auth-assertion"}
    | {b"x-vault-namespace", b"x-consul-namespace", b"x-consul-partition"}
    | {b"x-scope-orgid", b"x-grafana-org-id"}  # the first is that of Loki, Mimir and Tempo
)
"""Fields that say whose the path is, so that the same one is another's."""

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+")
_NEVER: Final = frozenset(
    {b"authorization", b"connection", b"content-length", b"cookie", b"expect", b"host"}
    | {b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""Fields that the gateway writes itself, or that hold the task token."""


def names_another(name: bytes) -> bool:
    """Tell whether a field, its name in lower case, is known to say on whose behalf it is."""
    alike = twin(name)
    return alike in _TENANTS or _USERS.search(alike) is not None


class BehalfRule:
    """What a scope says of on whose behalf a request may be; without fields, of nobody's.

    `names` are in lower case, as `broker.twins.twin` has them.
    """

    def __init__(self, fields: Mapping[str, Parameter]) -> None:
        self._fields: Final = {twin(name.lower().encode()): one for name, one in fields.items()}
        self._required: Final = tuple(name for name, one in self._fields.items() if one.required)
        self.names: Final = frozenset(self._fields)

    def problem(self, named: Named) -> str | None:
        """Return why a request that names these is refused, or None; no value is quoted."""
        for name, value in named:
            parameter = self._fields.get(name)
            if parameter is None:
                return (
                    f"{name.decode()} names another user, account or tenant, and is not listed "
                    "under on_behalf"
                )
            text = value.decode("ascii", "replace")
            if not text.isprintable() or "\ufffd" in text or not parameter.accepts(text):
                return f"{name.decode()} has a value that is not listed under on_behalf"
        there = {name for name, _ in named}
        missing = [name for name in self._required if name not in there]
        return f"{missing[0].decode()} is missing, under on_behalf" if missing else None


NOBODY: Final = BehalfRule({})
"""The rule of a scope that says nothing of it."""


class Behalf:
    """What all scopes of one service say of it; `rules` are theirs by name.

    `listed` are the names of fields that any of them lists.
    """

    def __init__(self, rules: Mapping[str, BehalfRule]) -> None:
        self._rules: Final = rules
        self.listed: Final = frozenset(name for rule in rules.values() for name in rule.names)

    def named(self, fields: Iterable[tuple[bytes, bytes]]) -> Named:
        """Return those fields that say on whose behalf a request is, as `BehalfRule.names` do.

        Given are the names of a request's fields, in lower case, and their values.
        """
        return tuple(
            (alike, value)
            for name, value in fields
            if (alike := twin(name)) in self.listed or names_another(alike)
        )

    def able(self, scopes: tuple[str, ...], named: Named) -> tuple[str, ...]:
        """Return those of the scopes that let a request be on such a behalf."""
        if not named and not self.listed:
            return scopes
        return tuple(
            name
            for name in scopes
            if name in self._rules and self._rules[name].problem(named) is None
        )

    def why_not(self, scopes: tuple[str, ...], named: Named) -> str | None:
        """Return why none of the scopes lets a request be on such a behalf; None if one does.

        Or if none is for this service, so that something else is wrong.
        """
        if not named and not self.listed:
            return None
        rules = [self._rules[name] for name in scopes if name in self._rules]
        # Those that list something know best.
        problems = [one.problem(named) for one in sorted(rules, key=lambda one: not one.names)]
        return problems[0] if problems and None not in problems else None


def parse_behalf(value: object) -> BehalfRule:
    """Return what a policy says of on whose behalf requests may be.

    Raises:
        ValueError: when that is nothing, or not to be told; the text says what to write.
    """
    if not isinstance(value, dict) or not value:
        raise ValueError("expected header fields and what each may be, such as {Sudo: {any: true}}")
    for name in value:
        if name == OTHERS or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header field")
        if twin(name.lower().encode()) in _NEVER:
            raise ValueError(f"{name} is written by the gateway itself, or holds the task token")
    if len({twin(name.lower().encode()) for name in value}) != len(value):
        raise ValueError("two of the fields are one to many programs, who read _ as -")
    return BehalfRule(parse_parameters(value))
