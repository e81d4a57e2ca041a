"""Media of small builds, and what tests read from them."""

import subprocess
from pathlib import Path

from bundler.bundle.layout import Layout, Media
from bundler.bundle.verify import verify
from support.command import run_bundler

SPLIT = Media(layout=Layout.SPLIT)
PUBLIC = Media(public_only=True)
PEM = rb"PRIVATE KEY-----|-----BEGIN CERTIFICATE-----\s*[A-Za-z0-9+/]{64}"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_bundler(
        [*map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def files_of(manifest: list[str]) -> list[str]:
    return [line for line in manifest if not line.startswith("#")]


def faults_of(directory: Path) -> list[str]:
    return [fault for verdict in verify(directory) for fault in verdict.faults]
