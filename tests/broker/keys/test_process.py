from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

REPORT = """
import ctypes, json, resource
from broker.keys.process import harden_process
{call}
print(json.dumps([ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_CORE)]))
"""
"""Prints what PR_GET_DUMPABLE (3) answers, and the limits of a core file's size."""


TAKE = """
import os, pathlib
from broker.keys.process import take_variable
before = os.environ["BROKER_X"] in pathlib.Path("/proc/self/environ").read_text()
print(before, take_variable("BROKER_X"), take_variable("BROKER_X"), "BROKER_X" in os.environ)
child = os.fork()
if child == 0:
    os.write(1, pathlib.Path("/proc/self/environ").read_bytes())
    os._exit(0)
os.waitpid(child, 0)
"""


def run(call: str) -> Any:
    program = [sys.executable, "-c", REPORT.format(call=call)]
    return json.loads(subprocess.run(program, check=True, capture_output=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_hardened_process_leaves_no_core_and_hides_its_memory() -> None:
    assert run("harden_process()") == [0, [0, 0]]
    assert run("harden_process(); harden_process()") == [0, [0, 0]]
    assert run("pass")[0] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_variable_that_is_taken_is_nowhere_any_more() -> None:
    environment = {"PATH": "/usr/bin", "BROKER_X": "canary-of-the-environment", "OTHER": "stays"}
    program = [sys.executable, "-c", TAKE]
    printed = subprocess.run(program, check=True, capture_output=True, env=environment).stdout
    assert b"True canary-of-the-environment None False" in printed
    assert printed.count(b"canary") == 1
    assert b"OTHER=stays" in printed
