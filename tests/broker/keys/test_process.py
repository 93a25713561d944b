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


def run(call: str) -> Any:
    program = [sys.executable, "-c", REPORT.format(call=call)]
    return json.loads(subprocess.run(program, check=True, capture_output=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_hardened_process_leaves_no_core_and_hides_its_memory() -> None:
    assert run("harden_process()") == [0, [0, 0]]
    assert run("harden_process(); harden_process()") == [0, [0, 0]]
    assert run("pass")[0] == 1
