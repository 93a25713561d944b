from __future__ import annotations

from urllib.parse import parse_qsl, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.globs import parse_glob
from broker.policy.query import OTHERS, Parameter, QueryRule, names_method, parse_parameters

PUBLIC = Parameter(("public",))
SORT = Parameter(("created", "updated"))
ACME = Parameter((parse_glob("repo:acme/*"),))
ANY = Parameter()

CLOSED = QueryRule({"type": PUBLIC, "page": ANY})
OPEN = QueryRule({"type": PUBLIC, OTHERS: ANY})


@pytest.mark.parametrize(
    "query",
    [
        b"type=public",
        b"type=public&page=2",
        b"page=2&type=public",
        b"type=public&page=",
        b"type=public&page=%C3%A9",
        b"%74ype=public",
        b"type=publi%63",
        b"type=public&",
        b"&type=public",
    ],
)
def test_allows_what_it_lists(query: bytes) -> None:
    assert CLOSED.problem(query) is None


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (b"", "'type' is missing"),
        (b"page=2", "'type' is missing"),
        (b"type", "value that the scope does not allow"),
        (b"type=", "value that the scope does not allow"),
        (b"type=private", "value that the scope does not allow"),
        (b"type=Public", "value that the scope does not allow"),
        (b"type=public%20", "value that the scope does not allow"),
        (b"type=public&type=public", "'type' is there twice"),
        (b"type=public&type=private", "'type' is there twice"),
        (b"type=public&page=1&page=2", "'page' is there twice"),
        (b"type=public&limit=3", "'page', 'type' alone"),
        (b"Type=public", "'page', 'type' alone"),
        (b"type=public&type[]=private", "'page', 'type' alone"),
        (b"type=public;type=private", "malformed"),
        (b"type=public&x=%zz", "malformed"),
        (b"type=public&x=%", "malformed"),
        (b"type=public&page=%ff", "malformed"),
        (b"type=public&page=\xc3\xa9", "malformed"),
        (b"type=public&page=%00", "malformed"),
        (b"type=public&page=%0a", "malformed"),
    ],
)
def test_refuses_all_else_and_says_why(query: bytes, problem: str) -> None:
    found = CLOSED.problem(query)
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    "query", [b"type=public&limit=3", b"type=public&a=1&a=2", b"type=public&=x"]
)
def test_others_may_be_there_where_it_says_so(query: bytes) -> None:
    assert OPEN.problem(query) is None


@pytest.mark.parametrize(
    "name",
    [b"Type", b"TYPE", b"type[]", b"type%5B%5D", b"type%5B0%5D", b"type.x", b"+type", b"type%20",
     b"Type[a][b]", b"%2574ype", b"%EF%BD%94ype"],
)  # fmt: skip
def test_others_never_pass_for_what_is_listed(name: bytes) -> None:
    found = OPEN.problem(b"type=public&" + name + b"=private")
    assert found is not None
    assert "passes for 'type'" in found


def test_lists_and_globs_are_alternatives() -> None:
    rule = QueryRule({"sort": SORT, "q": ACME})
    assert rule.problem(b"sort=updated&q=repo%3Aacme%2Fshop") is None
    assert rule.problem(b"sort=updated&q=repo:acme/shop") is None
    assert rule.problem(b"sort=stars&q=repo:acme/shop") is not None
    assert rule.problem(b"sort=updated&q=repo:acme/shop/x") is not None
    assert rule.problem(b"sort=updated&q=repo:acme%2Fshop+repo:other/x") is not None


def test_never_repeats_what_a_stranger_sent() -> None:
    for query in (
        b"sk_live_1=2&type=public",
        b"type=sk_live_1",
        b"type=public&page=sk_live_1&page",
    ):
        assert "sk_live_1" not in str(CLOSED.problem(query))


pairs = st.lists(
    st.tuples(
        st.sampled_from(["type", "page", "Type", "type[]", "x", "t\u00fdpe", ""]),
        st.sampled_from(["public", "private", "", "1", "a b", "%", "\u00e9"]),
    ),
    max_size=4,
)


@given(pairs)
def test_what_passes_is_what_parsers_see(given_pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in given_pairs)
    parsed = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in parsed]
    fits = (
        set(names) <= {"type", "page"}
        and len(set(names)) == len(names)
        and dict(parsed).get("type") == "public"
    )
    assert (CLOSED.problem(query.encode()) is None) is fits


@given(st.binary(max_size=40))
def test_any_bytes_get_an_answer(query: bytes) -> None:
    for rule in (CLOSED, OPEN):
        problem = rule.problem(query)
        assert problem is None or problem.isprintable()


def test_a_number_may_have_a_maximum() -> None:
    rule = QueryRule(parse_parameters({"limit": {"max": 100}}))
    assert rule.problem(b"limit=100") is None
    for query in (b"limit=101", b"limit=-1", b"limit=1e1", b"limit=", b""):
        assert rule.problem(query) is not None


def test_without_parameters_there_may_be_no_query() -> None:
    assert QueryRule({}).problem(b"") is None
    assert QueryRule({}).problem(b"a=1") == "the query string may hold nothing"


def test_a_reserved_name_is_for_a_listed_parameter_alone() -> None:
    rule = QueryRule({OTHERS: ANY}, reserved=["amount"])
    assert rule.problem(b"page=1") is None
    for query in (b"amount=1", b"AMOUNT=1", b"amount[]=1", b"%61mount=1"):
        assert rule.problem(query) == (
            "the query string may hold nothing that passes for a field of the body"
        )
    assert QueryRule({"amount": ANY, OTHERS: ANY}, reserved=["amount"]).problem(b"amount=1") is None


@pytest.mark.parametrize(
    ("query", "names"),
    [
        *((b"_method=A", True), (b"a&_Method", True), (b"%5F%4d%65%54%48%6F%64=A", True)),
        *(
            (b"a;+%20.method+[x]=A", True),
            (b"_method%00=A", True),
            (b"", False),
            (b"=_method", False),
        ),
        *((b"method=A", False), (b"a_method=A", False), (b"_methods=A", False), (b"a=&b", False)),
    ],
)
def test_whether_a_query_names_a_method(query: bytes, names: bool) -> None:  # noqa: FBT001 - a table's column
    assert names_method(query) is names
