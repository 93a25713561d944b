"""Vendors' own clients, unmodified: a base URL and a task token where their API key goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import github
import openai
import pytest
import stripe

from tests.fakes.vendor_api import PAGES, REPOSITORY, WORDS, VendorApi, vendor_api
from tests.integration.running_broker import BrokerHome, RunningBroker, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletionMessageParam

    from tests.components.oidc import OidcIssuer
    from tests.components.tls import TestAuthority

KEY = "sk_test_the_vendor_key_that_no_agent_may_see"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where are the keys?"}]

REFUSED = "refused by agent-token-broker, not by the service"

POLICY = """
identity_sources:
  ci:
    type: oidc
    issuer: {issuer}
    algorithms: [RS256]
    ca_file: {ca_file}
    allow_private: true
services:
  openai:
    provider: http_api
    base_url: {vendor}/v1
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: bearer, secret: "embedded:vendor"}}
  stripe:
    provider: http_api
    base_url: {vendor}
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: bearer, secret: "embedded:vendor"}}
  github:
    provider: http_api
    base_url: {vendor}
    ca_file: {ca_file}
    allow_private: true
    credential: {{type: header, name: Authorization, prefix: "token ", secret: "embedded:vendor"}}
scopes:
  github.issues:
    service: github
    allow: ["GET /repos/acme/shop/issues", "GET /repositories/7/issues"]
  openai.chat:
    service: openai
    allow: ["POST /chat/completions"]
  stripe.refund:
    service: stripe
    allow: ["GET /v1/charges", "POST /v1/refunds"]
agents:
  sdk-user:
    trust:
      - source: ci
        claims: {{sub: workload}}
    scopes: [github.issues, openai.chat, stripe.refund]
"""


@pytest.fixture(scope="module")
def vendor(tls_authority: TestAuthority) -> Iterator[VendorApi]:
    with vendor_api(KEY, tls_authority.certificate("127.0.0.1")) as api:
        yield api


@pytest.fixture(scope="module")
def broker(
    vendor: VendorApi,
    oidc_issuer: OidcIssuer,
    tls_authority: TestAuthority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningBroker]:
    home = BrokerHome.create(tmp_path_factory.mktemp("sdks") / "home")
    home.run("secret", "put", "vendor", stdin=KEY)
    home.policy(
        POLICY.format(issuer=oidc_issuer.url, ca_file=tls_authority.ca_file, vendor=vendor.url)
    )
    with running_broker(home) as running:
        yield running


@pytest.fixture
def task_token(broker: RunningBroker, oidc_issuer: OidcIssuer) -> str:
    proof = oidc_issuer.token(broker.home.control_url)
    return broker.task_token(proof, "github.issues openai.chat stripe.refund")


@pytest.fixture
def openai_client(broker: RunningBroker, task_token: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{broker.home.gateway_url}/openai", api_key=task_token, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def stripe_client(broker: RunningBroker, task_token: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        task_token,
        base_addresses={"api": f"{broker.home.gateway_url}/stripe"},
        max_network_retries=0,
    )


@pytest.fixture(autouse=True)
def only_the_key_arrives(vendor: VendorApi, task_token: str) -> Iterator[None]:
    vendor.requests.clear()
    yield
    assert vendor.requests
    for request in vendor.requests:
        assert request.headers["authorization"] in {f"Bearer {KEY}", f"token {KEY}"}
        assert task_token not in repr(request)


def test_openai_completes_a_chat(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(model="m", messages=QUESTION)
    assert answer.choices[0].message.content == "".join(WORDS)


def test_openai_streams_each_word_as_it_is_said(
    openai_client: openai.OpenAI, vendor: VendorApi
) -> None:
    heard = []
    with openai_client.chat.completions.create(model="m", messages=QUESTION, stream=True) as words:
        for event in words:
            heard.append(event.choices[0].delta.content)
            vendor.word_seen.release()
    assert heard == list(WORDS)


def test_stripe_lists_charges_with_its_query(
    stripe_client: stripe.StripeClient, vendor: VendorApi
) -> None:
    charges = stripe_client.v1.charges.list({"limit": 3})
    assert [charge.id for charge in charges.data] == ["ch_0", "ch_1", "ch_2"]
    assert vendor.requests[-1].path == "/v1/charges?limit=3"


def test_stripe_creates_a_refund(stripe_client: stripe.StripeClient, vendor: VendorApi) -> None:
    refund = stripe_client.v1.refunds.create({"charge": "ch_1", "amount": 500})
    assert (refund.status, refund.amount) == ("succeeded", 500)
    assert vendor.requests[-1].body == b"charge=ch_1&amount=500"


def test_openai_tells_a_refusal_as_the_brokers_own(
    openai_client: openai.OpenAI, vendor: VendorApi
) -> None:
    openai_client.chat.completions.create(model="m", messages=QUESTION)
    with pytest.raises(openai.PermissionDeniedError, match=REFUSED) as refusal:
        openai_client.models.list()
    assert "allowed: POST /chat/completions" in str(refusal.value)
    assert refusal.value.response.headers["Broker-Error"] == "policy_denied"
    assert len(vendor.requests) == 1


def test_stripe_tells_a_refusal_as_the_brokers_own(
    stripe_client: stripe.StripeClient, vendor: VendorApi
) -> None:
    stripe_client.v1.charges.list()
    with pytest.raises(stripe.PermissionError, match=REFUSED) as refusal:
        stripe_client.v1.payouts.create({"amount": 1, "currency": "eur"})
    assert "allowed: GET /v1/charges, POST /v1/refunds" in str(refusal.value)
    assert (refusal.value.headers or {})["Broker-Error"] == "policy_denied"
    assert len(vendor.requests) == 1


def test_github_goes_from_page_to_page(
    broker: RunningBroker, task_token: str, vendor: VendorApi
) -> None:
    with github.Github(
        base_url=f"{broker.home.gateway_url}/github",
        auth=github.Auth.Token(task_token),
        lazy=True,
        retry=None,
    ) as client:
        issues = list(client.get_repo("acme/shop").get_issues())
    assert [issue.number for issue in issues] == list(range(1, PAGES + 1))
    assert [request.path for request in vendor.requests] == [
        f"{REPOSITORY}/issues",
        *(f"/repositories/7/issues?page={page}" for page in range(2, PAGES + 1)),
    ]
