"""Made-up credentials of many kinds, and harmless look-alikes.

Each credential is put together when the tests run, so that no scanner takes this file for one.
"""

from __future__ import annotations

import base64
import json

_MIXED = "q7Wz2Kp9Lm4Xv8Rt3Yb6Nc1Hd5Jf0Gs" * 4
_HEX = "0123456789abcdef" * 8
_UPPER = "Q7WZ2KP4LM4XV6RT3YB6"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwt() -> str:
    header, claims = ({"alg": "none", "typ": "made-up"}, {"sub": "nobody"})
    parts = [_b64(json.dumps(part).encode()) for part in (header, claims)]
    return ".".join([*parts, _b64(b"not a signature")])


def _pem() -> str:
    dashes = "-" * 5
    body = "\n".join(_MIXED[start : start + 64] for start in (0, 64))
    return f"{dashes}BEGIN EC PRIVATE KEY{dashes}\n{body}\n{dashes}END EC PRIVATE KEY{dashes}"


CREDENTIALS: dict[str, str] = {
    "AWS access key": "AK" + "IA" + _UPPER[:16],
    "AWS session key": "AS" + "IA" + _UPPER[:16],
    "GitHub personal token": "gh" + "p_" + _MIXED[:36],
    "GitHub OAuth token": "gh" + "o_" + _MIXED[:36],
    "GitHub app token": "gh" + "s_" + _MIXED[:36],
    "GitHub fine-grained token": "github" + "_pat_" + _MIXED[:22] + "_" + _MIXED[:59],
    "GitLab token": "gl" + "pat-" + _MIXED[:20],
    "Slack bot token": "xo" + "xb-" + "123456789012-123456789012-" + _MIXED[:24],
    "Slack webhook": "https://hooks.slack.com/serv" + "ices/T00000000/B00000000/" + _MIXED[:24],
    "Stripe secret key": "sk" + "_live_" + _MIXED[:24],
    "Stripe test key": "sk" + "_test_" + _MIXED[:24],
    "Stripe restricted key": "rk" + "_live_" + _MIXED[:24],
    "Stripe webhook secret": "wh" + "sec_" + _MIXED[:32],
    "OpenAI key": "sk" + "-proj-" + _MIXED[:48],
    "Anthropic key": "sk" + "-ant-" + "api03-" + _MIXED[:80],
    "Google API key": "AI" + "za" + _MIXED[:35],
    "Google OAuth token": "ya" + "29." + _MIXED[:60],
    "Google client secret": "GOC" + "SPX-" + _MIXED[:28],
    "JWT": _jwt(),
    "private key": _pem(),
    "SendGrid key": "S" + "G." + _MIXED[:22] + "." + _MIXED[:43],
    "Twilio key": "S" + "K" + _HEX[:32],
    "Twilio account and token": "A" + "C" + _HEX[:32] + ":" + _HEX[:32],
    "npm token": "np" + "m_" + _MIXED[:36],
    "PyPI token": "py" + "pi-Ag" + _MIXED[:80],
    "Hugging Face token": "h" + "f_" + _MIXED[:34],
    "Shopify token": "shp" + "at_" + _HEX[:32],
    "Linear key": "lin" + "_api_" + _MIXED[:40],
    "Notion token": "nt" + "n_" + _MIXED[:46],
    "Notion old token": "sec" + "ret_" + _MIXED[:43],
    "Databricks token": "da" + "pi" + _HEX[:32],
    "DigitalOcean token": "do" + "p_v1_" + _HEX[:64],
    "Telegram bot token": "123456789" + ":" + "AA" + _MIXED[:33],
    "Discord bot token": "M" + _MIXED[:25] + "." + _MIXED[:6] + "." + _MIXED[:38],
    "Vault service token": "hv" + "s." + _MIXED[:24],
    "Vault old token": "s" + "." + _MIXED[:24],
    "Terraform token": _MIXED[:14] + "." + "atlas" + "v1." + _MIXED[:60],
    "Pulumi token": "pu" + "l-" + _HEX[:40],
    "Doppler token": "dp" + ".pt." + _MIXED[:43],
    "Supabase key": "sb" + "p_" + _HEX[:40],
    "PlanetScale token": "pscale" + "_tkn_" + _MIXED[:43],
    "Sentry token": "snt" + "rys_" + _MIXED[:60],
    "Grafana token": "gl" + "sa_" + _MIXED[:32] + "_" + _HEX[:8],
    "New Relic key": "NR" + "AK-" + _UPPER + _UPPER[:7],
    "Figma token": "fi" + "gd_" + _MIXED[:40],
    "Postman key": "PM" + "AK-" + _HEX[:24] + "-" + (_HEX + _HEX)[:34],
    "Mailgun key": "ke" + "y-" + _HEX[:32],
    "Meta token": "EA" + "A" + _MIXED[:60],
    "Fly token": "fo" + "1_" + _MIXED[:43],
    "Docker token": "dckr" + "_pat_" + _MIXED[:27],
    "RubyGems key": "ruby" + "gems_" + _HEX[:48],
    "Replicate token": "r" + "8_" + _MIXED[:37],
    "Groq key": "gs" + "k_" + _MIXED[:52],
    "xAI key": "xa" + "i-" + _MIXED[:80],
    "Perplexity key": "pp" + "lx-" + _MIXED[:48],
    "Square token": "sq" + "0atp-" + _MIXED[:22],
    "Atlassian token": "AT" + "ATT" + "3xFf" + _MIXED[:100],
    "age key": "AGE-SECRET" + "-KEY-1" + _UPPER * 2,
    "unknown key": _MIXED[:40],
    "authorization header": "Authorization: Custom " + "swordfish",
    "cookie header": "Cookie: sid=" + "swordfish",
    "bearer": "Bearer " + "swordfish-0123456789",
    "basic": "basic " + _b64(b"user:swordfish1"),
    "URL parameter": "https://api.example.com/v1/x?page=2&access_token=" + "swordfish",
    "URL signature": "https://files.example.com/x?X-Amz-Signature=" + _HEX[:64],
    "URL password": "https://admin:" + "swordfish" + "@db.example.com/x",
    "JSON member": '{"client_secret": "' + "swordfish" + '"}',
    "escaped JSON member": '{\\"api_key\\":\\"' + "swordfish" + '\\"}',
    "setting": "AWS_SECRET_ACCESS_KEY=" + "swordfish/with+signs",
    "API key header": "X-Api-Key: " + "swordfish",
}

PERSONAL: dict[str, str] = {
    "e-mail address": "jane.doe+tag@mail.example.co.uk",
    "encoded e-mail address": "jane%40example.com",
    "international phone number": "+49 171 1234567",
    "compact phone number": "+15551234567",
    "American phone number": "(555) 123-4567",
    "dashed phone number": "555-123-4567",
    "tel link": "tel:5551234567",
    "Visa": "4111 1111 " + "1111 1111",
    "Mastercard": "5500-0000-" + "0000-0004",
    "American Express": "3782822" + "46310005",
    "Discover": "601111111" + "1111117",
}

LOOK_ALIKES: tuple[str, ...] = (
    "123e4567-e89b-12d3-a456-426614174000",
    "12345678-1234-1234-1234-123456789012",
    "550e8400e29b41d4a716446655440000",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "2026-03-15T10:23:45Z",
    "2026-03-15T10:23:45.123456+01:00",
    "2026-03-15 10:23:45 +0000",
    "1773570225",
    "1773570225123",
    "1773570225123456",
    "order-1234567890123456",
    "INV-2026-000123",
    "1234567890123456789",
    "ch_3MmlLrLkdIwHu7ix0snN0B15",
    "cus_NffrFeUfNV2Hib",
    "pi_3MtwBwLkdIwHu7ix28a3tqPa",
    "evt_1NG8Du2eZvKYlo2CUI79vXWy",
    "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "asst_abc123DEF456ghi789JKL012",
    "req_011CSHoEeqs5C35K2UUqR7Fy",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "507f1f77bcf86cd799439011",
    "4111 1111 1111 1112",
    "1.2.3",
    "1.2.3-rc.1+20260315102345",
    "v2.0.0-beta.11",
    "agent-token-broker-0.1.0-py3-none-any.whl",
    "Quarterly-Report-2026-Q1-Final-Version-3.pdf",
    "terraform_1.11.0_linux_amd64.zip",
    "deploy-7d9c5b8f6d-x2x4z",
    "arn:aws:iam::123456789012:role/agent-task",
    "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_AdministratorAccess_0123456789abcdef/x",
    "AC" + _HEX[:32],
    "how-to-rotate-a-signing-key-without-downtime-in-2026",
    "HTMLToPDFConverterServiceFactoryBeanV2",
    "MyVeryLongClassNameForTesting123",
    "192.168.100.200",
    "2001:db8::8a2e:370:7334",
    "00:1b:44:11:3a:b7",
    "git@github.com:acme/app.git",
    "react@18.2.0",
    "pkg@1.0.0-beta.alpha",
    "actions/checkout@v4.1.2",
    "docker.io/library/nginx:1.27",
    "repo:acme/app:ref:refs/heads/main",
    "system:serviceaccount:agents:release-bot",
    "spiffe://example.org/ns/agents/sa/release-bot",
    "scopes: token:read secret:write key:rotate",
    "max_tokens=4096 completion_tokens: 128",
    "token_type=access grant_type=client",
    "secret: vault:kv/stripe#key",
    "password=env:STRIPE_KEY",
    "the bearer of good news",
    "a basic understanding of tokens",
    "risk-assessment-of-the-year-2026-and-task-lists",
    "sk-SK and other locales",
    "GET /v1/charges/*",
    "stripe.read issues.write artifacts.read",
    "it took 142ms, 99.95 % of 1,234,567 requests",
    "call me at extension 555-1234",
)
