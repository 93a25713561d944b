"""Have tests run on the compiled broker: `make test-compiled` (`pytest -p tests.compiled`).

It is to be found before the source; whatever is imported from here on is it. Tests that put
something in the place of a part of it cannot: they are marked `interpreted`.
"""

from __future__ import annotations

import pytest

from broker.gateway import relay

if not relay.__file__.endswith(".so"):
    raise pytest.UsageError(
        f"{relay.__file__} is not compiled: run `make test-compiled`, with a .venv of the same "
        "version of Python as /usr/bin/python3"
    )
