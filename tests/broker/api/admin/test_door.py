from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.admin_bench import HOST, open_admin

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.admin_bench import AdminBench


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.e30.c2ln",
        "Bearer atbadm_000000000000_" + "0" * 64,
        "Bearer a b",
    ],
)
async def test_nobody_else_is_let_in(admin: AdminBench, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with admin.client(None, **headers) as stranger:
        for path in ("/self", "/policy", "/nothing"):
            answer = await stranger.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="admin"'
            assert answer.json()["code"] == "unauthorized"
    record = admin.trail.records[0]
    assert (record.action, record.decision, record.status) == ("admin.request", "deny", 401)
    assert (record.method, record.path) == ("GET", "/admin/v1/self")
    assert record.source_address == "192.0.2.1"


async def test_a_body_is_not_read_before_its_sender_is_known(admin: AdminBench) -> None:
    read = False

    async def body() -> Any:
        nonlocal read
        read = True
        yield b"{}"

    async with admin.client(None) as stranger:
        assert (await stranger.post("/policy/changes", content=body())).status_code == 401
    assert not read


async def test_a_header_that_is_given_twice_is_refused_and_recorded(admin: AdminBench) -> None:
    good = f"Bearer {admin.token}"
    twice = [("Authorization", good), ("Authorization", good)]
    async with admin.client(None) as client:
        answer = await client.get("/policy", headers=twice)
    assert answer.status_code == 400
    assert (admin.trail.records[0].status, admin.trail.records[0].detail) == (400, "headers")


@pytest.mark.parametrize("host", [HOST, "localhost:8702", "LOCALHOST:8702", "[::1]:8702"])
async def test_the_listener_goes_by_its_own_names(admin: AdminBench, host: str) -> None:
    async with admin.client(admin.token, Host=host) as client:
        assert (await client.get("/self")).status_code == 200


async def test_the_url_that_leads_here_is_a_name_too(tmp_path: Path) -> None:
    settings = {"host": "192.0.2.7", "url": "https://Admin.example"}
    async with open_admin(tmp_path / "home", **settings) as admin:
        for host, status in (("admin.example", 200), ("192.0.2.7:8702", 200), (HOST, 403)):
            async with admin.client(admin.token, Host=host) as client:
                assert (await client.get("/self")).status_code == status
