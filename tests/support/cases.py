"""Which cases of a test run in `make test`; `make test-long` runs all."""

from collections.abc import Iterable
from typing import Any

import pytest


def first_cases(values: Iterable[Any], count: int) -> list[Any]:
    """The parameters of a test; those after the first `count` are marked long."""
    return [
        value
        if number < count
        else pytest.param(*value if isinstance(value, tuple) else (value,), marks=pytest.mark.long)
        for number, value in enumerate(values)
    ]
