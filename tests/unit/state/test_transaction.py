"""Transactions of several files in the state directory."""

from pathlib import Path

import pytest

from bundler.errors import PkiError
from bundler.state.transaction import finish_transaction, write_transaction


def test_a_transaction_writes_and_removes_files_and_a_damaged_one_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").write_text("old")
    write_transaction(tmp_path, {"a": b"new", "b/c": b"made"}, ("gone",))
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "b/c").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / ".change").mkdir()
    (tmp_path / ".change/index.json").write_text("{")
    with pytest.raises(PkiError, match="its index is damaged"):
        finish_transaction(tmp_path)
