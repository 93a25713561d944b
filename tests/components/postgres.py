"""PostgreSQL, a real server, in which a secrets engine makes users and drops them."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.components.process import free_port, listening, serving, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.gate import Gate

_ADMIN: Final = "admin"
_REMEDY: Final = "apt-get install postgresql"


@dataclass(frozen=True)
class Postgres:
    """A running server; `admin` may do everything."""

    programs: Path
    port: int
    password: str = field(repr=False)
    admin: str = _ADMIN

    def query(self, sql: str, *, user: str = _ADMIN, password: str | None = None) -> str:
        """Return what a query prints; raise `PermissionError` if the user may not log in or ask."""
        done = subprocess.run(
            [
                self.programs / "psql",
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                f"--command={sql}",
                f"host=127.0.0.1 port={self.port} dbname=postgres user={user}",
            ],
            env={"PATH": os.environ["PATH"], "PGPASSWORD": password or self.password},
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout.strip()

    def accepts(self, user: str, password: str) -> bool:
        """Say whether a user can log in."""
        try:
            return self.query("SELECT 1", user=user, password=password) == "1"
        except PermissionError:
            return False

    def users(self, prefix: str = "v-") -> set[str]:
        """Return the users that a secrets engine has made and not dropped."""
        names = self.query(f"SELECT usename FROM pg_user WHERE usename LIKE '{prefix}%'")  # noqa: S608
        return set(names.split())


@contextmanager
def running_postgres(component: Gate) -> Iterator[Postgres]:
    """Run a server with storage in a temporary directory until the block ends."""
    programs = _programs(component)
    port, password = free_port(), secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="postgres-") as place:
        # The server refuses to be root's, so that its files must be somebody else's.
        user = _somebody() if os.geteuid() == 0 else None
        directory = Path(place)
        data, secret = directory / "data", directory / "password"
        secret.write_text(password)
        if user is not None:
            for path in (directory, secret):
                shutil.chown(path, user)
        subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={data}",
                f"--username={_ADMIN}",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
            ],
            env={"PATH": os.environ["PATH"]},
            user=user,
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=60,
        )
        server = Postgres(programs, port, password)
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        with serving(
            [
                str(programs / "postgres"),
                "-D",
                str(data),
                "-p",
                str(port),
                *(part for setting in settings for part in ("-c", setting)),
            ],
            lambda: listening(port),
            directory=directory,
            environment={"PATH": os.environ["PATH"]},
            user=user,
        ):
            wait_until(lambda: server.accepts(_ADMIN, password), "PostgreSQL to take logins")
            yield server


@pytest.fixture(scope="session")
def postgres(component: Gate) -> Iterator[Postgres]:
    """One server for the whole run."""
    with running_postgres(component) as server:
        yield server


def _programs(component: Gate) -> Path:
    """Return where the server's programs are: Debian keeps them off the search path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: one.parent.name)
    if found:
        return found[-1]
    return Path(component.program("initdb", _REMEDY)).resolve().parent


def _somebody() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
