"""The fixtures every test may use: real components, started once and stopped at the end."""

from __future__ import annotations

pytest_plugins = (
    "tests.components.gate",
    "tests.components.oidc",
    "tests.components.openbao",
    "tests.components.tls",
    "tests.fakes.issuer",
    "tests.fakes.token_bench",
    "tests.fakes.gateway",
)
