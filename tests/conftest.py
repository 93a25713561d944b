"""The fixtures every test may use: real components, started once and stopped at the end."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

pytest_plugins = (
    "tests.components.faults",
    "tests.components.gate",
    "tests.components.github",
    "tests.components.moto",
    "tests.components.oauth",
    "tests.components.oidc",
    "tests.components.openbao",
    "tests.components.postgres",
    "tests.components.redis",
    "tests.components.radosgw",
    "tests.components.terraform",
    "tests.components.tls",
    "tests.fakes.endpoint",
    "tests.fakes.issuer",
    "tests.fakes.token_bench",
    "tests.fakes.admin_bench",
    "tests.fakes.gateway",
    "tests.fakes.aws_gateway",
    "tests.fakes.github_bench",
    "tests.fakes.lease_bench",
    "tests.fakes.limited",
)
