from __future__ import annotations

import pytest
from pydantic import ValidationError

from broker.policy.timeouts import Timeouts
from providers.base import Upstream

HERE = Upstream("https", "api.example", 443)


def test_timeouts_are_durations() -> None:
    timeouts = Timeouts.model_validate({"connect": "500ms", "first_byte": "2m", "idle": 3})
    applied = timeouts.applied_to(HERE)
    assert applied.connect_timeout == 0.5
    assert applied.first_byte_timeout == 120
    assert applied.idle_timeout == 3
    assert (applied.host, applied.port) == (HERE.host, HERE.port)


def test_what_is_left_out_stays_as_it_is() -> None:
    only = Timeouts.model_validate({"idle": "1h"}).applied_to(HERE)
    assert only.connect_timeout == HERE.connect_timeout
    assert only.idle_timeout == 3600


@pytest.mark.parametrize("field", ["connect", "first_byte", "idle"])
@pytest.mark.parametrize(
    "value", ["", "5", "-1s", "1d", 0, -1, "2h", float("nan"), float("inf"), True, "1 s", "1e3s"]
)
def test_other_timeouts_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Timeouts.model_validate({field: value})


def test_nothing_else_is_known() -> None:
    with pytest.raises(ValidationError):
        Timeouts.model_validate({"read": 1})
    with pytest.raises(ValidationError, match="at least one"):
        Timeouts()
