"""radosgw, Ceph's S3 and STS: a server that enforces session policies, and checks signatures.

It belongs to a cluster of one monitor and one OSD that keeps everything in memory. It knows
neither session tags nor source identities, and takes them without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from botocore.config import Config

from tests.components.moto import AccessKey, document
from tests.components.process import free_port, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from tests.components.gate import Gate

REGION: Final = "us-east-1"
USER: Final = "broker"

_PROGRAMS: Final = {
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "radosgw-admin": "radosgw",
    "ceph": "ceph-common",
    "ceph-authtool": "ceph-common",
    "monmaptool": "ceph-common",
}
_CLUSTER: Final = "11111111-2222-3333-4444-555555555555"
_PATIENCE: Final = 100.0
_CONFIG: Final = """
[global]
fsid = {cluster}
mon initial members = a
mon host = [v2:127.0.0.1:{mon}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
keyring = {folder}/keyring
admin socket =
run dir = {folder}
log file =
mon cluster log file =
mon data = {folder}/mon-data
mon data avail warn = 1
mon data avail crit = 0
osd data = {folder}/osd-data
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
rgw frontends = beast endpoint=127.0.0.1:{rgw}
rgw s3 auth use sts = true
rgw sts key = sixteen-bytes-ok
rgw enable ops log = false
rgw enable usage log = false
rgw run sync thread = false
rgw dynamic resharding = false
rgw override bucket index max shards = 1
rgw gc max objs = 1
rgw lc max objs = 1
"""

_names: Final = count(1)


@dataclass(frozen=True)
class Radosgw:
    """A running server; `owner` owns its buckets and may assume `role`, which may do all on S3."""

    url: str
    owner: AccessKey
    role: str

    def s3(self, key: AccessKey, **config: Any) -> S3Client:
        """Return a client of S3 that signs with a key."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            aws_session_token=key.token,
            config=Config(retries={"total_max_attempts": 1}, proxies={}, **config),
        )

    def bucket(self, **objects: str) -> str:
        """Make a bucket with some objects; return its name."""
        s3, name = self.s3(self.owner), f"bucket-{next(_names)}"
        s3.create_bucket(Bucket=name)
        for key, text in objects.items():
            s3.put_object(Bucket=name, Key=key, Body=text.encode())
        return name


class _Cluster:
    """The programs of a cluster in a folder, and what they are run with."""

    def __init__(self, gate: Gate, folder: Path) -> None:
        self._paths = {
            name: gate.program(name, f"apt-get install {package}")
            for name, package in _PROGRAMS.items()
        }
        self._folder = folder
        self._config = folder / "ceph.conf"
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self.mon, self.rgw = free_port(), free_port()
        self._config.write_text(
            _CONFIG.format(cluster=_CLUSTER, mon=self.mon, rgw=self.rgw, folder=folder)
        )

    def run(self, program: str, *words: str) -> str:
        """Run one of the programs to its end."""
        done = subprocess.run(
            [self._paths[program], *words],
            env={**self._environment, "CEPH_CONF": str(self._config)},
            cwd=self._folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, stack: ExitStack, name: str, program: str, *words: str, port: int = 0) -> None:
        """Start one of the servers; wait until it listens, where it is to."""
        folder = self._folder / name
        folder.mkdir()
        stack.enter_context(
            serving(
                [self._paths[program], "-c", str(self._config), "-f", *words],
                lambda: not port or listening(port),
                directory=folder,
                environment=self._environment,
                patience=_PATIENCE,
            )
        )

    def make(self, stack: ExitStack) -> None:
        """Start the monitor and the OSD."""
        keyring, everything = "keyring", ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self.run(
            "ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", *everything
        )
        for name in ("client.admin", "osd.0"):
            self.run("ceph-authtool", keyring, "--gen-key", "-n", name, *everything)
        address = f"[v2:127.0.0.1:{self.mon}]"
        self.run("monmaptool", "--create", "--fsid", _CLUSTER, "--addv", "a", address, "monmap")
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", keyring)
        self.serve(stack, "mon", "ceph-mon", "-i", "a", port=self.mon)
        osd = str(uuid.uuid4())
        self.run("ceph", "osd", "new", osd, "0")
        (self._folder / "osd-data").mkdir()
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "--no-mon-config")
        self.serve(stack, "osd", "ceph-osd", "-i", "0")

    def populate(self, owner: AccessKey) -> str:
        """Make a user, and a role that it may assume; return the role's ARN."""
        self.run(
            *("radosgw-admin", "user", "create", f"--uid={USER}", f"--display-name={USER}"),
            *(f"--access-key={owner.id}", f"--secret-key={owner.secret}"),
        )
        principal = {"AWS": [f"arn:aws:iam:::user/{USER}"]}
        trust = {"Effect": "Allow", "Principal": principal, "Action": ["sts:AssumeRole"]}
        role = json.loads(
            self.run(
                *("radosgw-admin", "role", "create", "--role-name=task"),
                f"--assume-role-policy-doc={document(trust)}",
            )
        )
        may = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
        self.run(
            *("radosgw-admin", "role-policy", "put", "--role-name=task", "--policy-name=own"),
            f"--policy-doc={document(may)}",
        )
        arn: str = role["Arn"]
        return arn


@pytest.fixture(scope="session")
def radosgw(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radosgw]:
    """One server for the whole run; tests make their own buckets."""
    cluster = _Cluster(component, tmp_path_factory.mktemp("ceph"))
    owner = AccessKey("AKIARADOSGW", "the-owners-secret")
    with ExitStack() as stack:
        cluster.make(stack)
        role = cluster.populate(owner)
        cluster.serve(stack, "rgw", "radosgw", "-n", "client.admin", port=cluster.rgw)
        yield Radosgw(f"http://127.0.0.1:{cluster.rgw}", owner, role)
