"""Run a bundler command inside the test's own process: what a user runs, without a start-up for each call.

Signals, kills and the start of the program itself are tested with real processes (test_interrupts.py,
tests/component).
"""

import contextlib
import getpass
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from bundler import log
from bundler.cli.app import main


def run_bundler(
    arguments: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",  # noqa: A002 - as in subprocess.run
    check: bool = False,
    text: bool = False,
    capture_output: bool = True,
) -> subprocess.CompletedProcess[Any]:
    """The result of `bundler ARGUMENTS...`, in the form of subprocess.run."""
    assert capture_output
    words = ["bundler", *map(str, arguments)]
    stdin, stdout, stderr = (_make_stream(content) for content in (input.encode(), b"", b""))
    code = 0
    with (
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "stdin", stdin),
        mock.patch.object(log, "_quiet", False),
        mock.patch.dict(os.environ, env or {}, clear=env is not None),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        warnings.simplefilter("default", getpass.GetPassWarning)  # no terminal here
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    outputs = [_read(stream, text=text) for stream in (stdout, stderr)]
    done = subprocess.CompletedProcess(words, code, *outputs)
    if check:
        done.check_returncode()
    return done


def _make_stream(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", write_through=True)


def _read(stream: io.TextIOWrapper, *, text: bool) -> str | bytes:
    stream.flush()
    content = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return content.decode() if text else content
