from __future__ import annotations

import pytest

from broker.errors import ConfigurationError
from broker.resources import data_path


def test_the_catalogue_is_found_in_a_checkout() -> None:
    assert data_path("catalogue").is_dir()
    assert list(data_path("catalogue").glob("*.yaml"))


def test_a_missing_file_is_named_with_the_places_that_were_looked_in() -> None:
    with pytest.raises(ConfigurationError, match=r"'no-such-file'.*_data.*policies"):
        data_path("no-such-file")
