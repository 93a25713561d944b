"""`terraform-provider-broker`: what Terraform starts, and how it is put where Terraform looks."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

ADDRESS: Final = "registry.terraform.io/agent-token-broker/broker"
"""What `source = "agent-token-broker/broker"` means to Terraform."""

_MACHINES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_MISSING: Final = (
    "terraform-provider-broker needs the package tf: pip install 'agent-token-broker[terraform]'"
)
_CONFIGURATION: Final = """\
provider_installation {{
  filesystem_mirror {{
    path    = "{directory}"
    include = ["{address}"]
  }}
  direct {{
    exclude = ["{address}"]
  }}
}}
"""
_USAGE: Final = """\
Terraform starts this program by itself, once it knows where it is:

    terraform-provider-broker mirror DIR

puts it into a file system mirror, and says what belongs into Terraform's configuration.
"""


def main() -> None:
    """Serve Terraform; or, asked to `mirror DIR`, make a mirror from which it installs this."""
    arguments = sys.argv[1:]
    if find_spec("tf") is None:
        sys.exit(_MISSING)
    if arguments[:1] == ["mirror"] and len(arguments) == 2:  # noqa: PLR2004 - and where
        sys.stdout.write(make_mirror(Path(arguments[1])))
        return
    if arguments or "TF_PLUGIN_MAGIC_COOKIE" not in os.environ:
        sys.exit(_USAGE)
    from tf.runner import run_provider  # noqa: PLC0415 - an extra

    from broker.terraform.provider import BrokerProvider  # noqa: PLC0415 - needs the extra

    run_provider(BrokerProvider())


def make_mirror(directory: Path) -> str:
    """Put this provider into the mirror at `directory`; return what to tell Terraform.

    What is put there starts the Python that runs this, whose packages it needs.
    """
    release = version("agent-token-broker")
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}_{_MACHINES.get(machine, machine)}"
    place = directory.absolute() / ADDRESS / release / system
    place.mkdir(parents=True, exist_ok=True)
    program = place / f"terraform-provider-broker_v{release}"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m broker.terraform "$@"\n')
    program.chmod(0o755)
    return _CONFIGURATION.format(directory=directory.absolute(), address=ADDRESS)
