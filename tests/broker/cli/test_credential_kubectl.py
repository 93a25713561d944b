from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.credential_kubectl import api_version, document
from broker.errors import ConfigurationError
from tests.broker.cli.test_token import answering, on_port

if TYPE_CHECKING:
    from tests.broker.cli.conftest import Commands

V1, V1BETA1 = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
TOKEN = {"service_account_token": "eyJ.a.b", "service_account_name": "x"}
PAIR = {"certificate": "LEAF\n", "ca_chain": '["BETWEEN"]', "private_key": "KEY"}


def answer(credential: dict[str, Any]) -> dict[str, Any]:
    return {"scope": "pods.read", "expires_at": 2_750_000_900, "credential": credential}


def test_prints_what_kubectl_reads(broker: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"access_token": "a.b.c", **answer(TOKEN)}
    with answering(200, json.dumps(given).encode()) as (port, forms):
        on_port(monkeypatch, port)
        ran = broker.ok("credential", "kubectl", "pods.read", "--ttl", "5m")
        asked = {"apiVersion": V1BETA1, "kind": "ExecCredential", "spec": {"interactive": False}}
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", json.dumps(asked))
        older = broker.ok("credential", "kubectl", "pods.read")
    assert ran.data == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "status": {"token": "eyJ.a.b", "expirationTimestamp": "2057-02-21T17:08:20Z"},
    }
    assert older.data == {**ran.data, "apiVersion": V1BETA1}
    assert (forms[0]["scope"], forms[0]["ttl"]) == (["pods.read"], ["300"])


def test_a_version_that_nobody_knows_mints_nothing(
    broker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(200, b"{}") as (port, forms):
        on_port(monkeypatch, port)
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", json.dumps({"apiVersion": V1 + "alpha1"}))
        told = broker.refused("credential", "kubectl", "pods.read")
    assert V1BETA1 in told
    assert "did you mean" in told
    assert forms == []


@pytest.mark.parametrize("info", ["{", "[]", "{}", '{"apiVersion": 1}', "[" * 10_000, "\ud800"])
def test_what_is_no_exec_credential_is_refused(info: str) -> None:
    with pytest.raises(ConfigurationError):
        api_version(info)


def test_without_a_word_of_kubectl_it_is_the_version_of_today() -> None:
    assert api_version(None) == api_version("") == V1
    assert api_version(json.dumps({"apiVersion": V1BETA1})) == V1BETA1


def test_a_client_certificate_with_its_chain() -> None:
    status = document(answer(PAIR), V1)["status"]
    assert status["clientCertificateData"] == "LEAF\nBETWEEN\n"
    assert status["clientKeyData"] == "KEY"
    assert "token" not in status
    alone = {name: PAIR[name] for name in ("certificate", "private_key")}
    for chain in ({}, {"ca_chain": "{"}, {"ca_chain": "7"}, {"ca_chain": None}):
        shown = document(answer({**alone, **chain}), V1)["status"]
        assert shown["clientCertificateData"] == "LEAF\n"


def test_a_token_of_another_name_is_taken_if_it_is_a_jwt() -> None:
    assert document(answer({"token": "eyJh.eyJz.c2ln"}), V1)["status"]["token"] == "eyJh.eyJz.c2ln"


@pytest.mark.parametrize(
    "credential",
    [
        *({}, {"password": "hunter2"}, {"certificate": "hunter2"}),
        *({"token": "ghs_hunter2"}, {"token": "hvs.hunter2"}, {"token": "ghs_eyJhunter2.a.b"}),
    ],
)
def test_what_no_api_server_takes_is_not_printed(credential: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"pods\.read has neither") as refusal:
        document(answer(credential), V1)
    assert "hunter2" not in str(refusal.value)


@given(
    st.text()
    | st.recursive(st.text() | st.integers(), st.lists).map(json.dumps)
    | st.fixed_dictionaries({"apiVersion": st.text() | st.sampled_from([V1, V1BETA1])}).map(
        json.dumps
    )
)
def test_whatever_the_environment_holds_it_is_one_that_is_known_or_refused(info: str) -> None:
    with suppress(ConfigurationError):
        assert api_version(info) in {V1, V1BETA1}
