from __future__ import annotations

import pytest

from broker.changes.edits import (
    Edit,
    canonical,
    documents_of,
    dotted,
    findings,
    require_comment,
    require_sound,
    secrets_in,
)
from broker.errors import InvalidRequest, Problem, StorageError
from broker.model import PolicyChange, PolicyEntry
from broker.storage.base import KeptPolicy

SECRET = "sk_live_" + "0123456789abcdefABCDEF"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----"


def scope(body: object, name: str = "a.read") -> Edit:
    return Edit("scopes", name, body, None)


@pytest.mark.parametrize(
    ("edit", "field", "told"),
    [
        (Edit("scope", "a", {}, None), "section", "there are identity_sources, services"),
        (Edit("", "a", {}, None), "section", "there is no section ''"),
        (Edit("scopes", "", {}, None), "name", "a name is"),
        (Edit("scopes", "../x", {}, None), "name", "a name is"),
        (Edit("scopes", "A", None, "*"), "name", "a name is"),
        (Edit("scopes", "a\n", {}, None), "name", "a name is"),
    ],
)
def test_edits_that_make_no_sense_are_refused(edit: Edit, field: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as refusal:
        require_sound([edit])
    assert refusal.value.field == field


def test_one_entry_is_changed_once_at_a_time() -> None:
    require_sound([scope({}), scope({}, "b.read"), Edit("agents", "a.read", {}, None)])
    with pytest.raises(InvalidRequest, match=r"scopes/a\.read is changed twice"):
        require_sound([scope({}), scope(None)])


@pytest.mark.parametrize("comment", ["a\nb", "x" * 501, "\u202e", f"use {SECRET}"])
def test_comments_are_one_line_of_ordinary_text(comment: str) -> None:
    require_comment(None)
    require_comment("why: é 😀")
    with pytest.raises(InvalidRequest) as refusal:
        require_comment(comment)
    assert refusal.value.field == "comment"
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"credential": {"secret": SECRET}}, "credential.secret"),
        ({"description": f"the key is {SECRET}."}, "description"),
        ({"list": ["a", {"b": PEM}]}, "list[1].b"),
        ({"x": {SECRET: 1}}, "x"),
        ({"header": "Bearer abcdefgh12345678"}, "header"),
    ],
)
def test_what_looks_like_a_secret_is_never_kept(body: object, field: str) -> None:
    edit = scope(body)
    (problem,) = secrets_in([edit])
    assert "looks like a secret" in problem.message
    assert SECRET not in problem.message
    kept = PolicyEntry("scopes", "a.read", canonical(body), PolicyChange(0, "a", None, ()))
    (finding,) = findings([problem], documents_of(KeptPolicy(1, (kept,))))
    assert (finding.section, finding.name, finding.field) == ("scopes", "a.read", field)


@pytest.mark.parametrize(
    "text",
    [
        "vault:kv/stripe#key",
        "embedded:stripe",
        "env:STRIPE_API_KEY",
        "Token token={secret}",
        "Bearer {secret}",
        "arn:aws:iam::123456789012:role/agent-task",
        "https://token.actions.githubusercontent.com",
        "sha256:33184b38338724254fdc9af5a8db94c5126c3ef4d9b7c330a8e8fe74507ca75a",
    ],
)
def test_references_and_templates_are_no_secrets(text: str) -> None:
    assert secrets_in([scope({"x": [text]}), scope(None)]) == ()


def test_problems_are_told_by_entry_and_field_or_by_place() -> None:
    (document,) = documents_of(
        KeptPolicy(1, (PolicyEntry("scopes", "a", '{"x":["y"]}', PolicyChange(0, "a", None, ())),))
    )
    line = document.text.splitlines().index('    "y"') + 1
    in_entry, in_file = findings(
        [Problem(document.name, line, 5, "wrong"), Problem("p.yaml", 1, 2, "bad")], [document]
    )
    assert (in_entry.section, in_entry.name, in_entry.field) == ("scopes", "a", "x[0]")
    assert in_entry.place is None
    assert (in_file.section, in_file.field, in_file.place) == (None, "", "p.yaml:1:2")


def test_paths_are_written_as_people_write_them() -> None:
    assert dotted(("trust", 0, "claims", "a.b")) == "trust[0].claims.a.b"
    assert dotted(()) == ""


def test_a_body_that_is_damaged_is_told() -> None:
    entry = PolicyEntry("scopes", "a", '{"x":', PolicyChange(0, "a", None, ()))
    with pytest.raises(StorageError, match="no readable scopes/a"):
        documents_of(KeptPolicy(1, (entry,)))
