"""A kill in the middle of a transaction of the state directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from bundler.state import transaction


@contextmanager
def interrupt_write(number: int) -> Iterator[None]:
    """Raise KeyboardInterrupt in place of the n-th file that is written; the first has the number 1."""
    numbers, original = count(1), transaction.write_atomically

    def write(path: Path, data: bytes) -> None:
        if next(numbers) == number:
            raise KeyboardInterrupt
        original(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "write_atomically", write)
        yield
