"""Every shell that a host may have as /bin/sh, and programs that stand in for real ones."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

ALL_SHELLS = (["dash"], ["busybox", "sh"], ["bash", "--posix"])
CHOSEN = os.environ.get("BUNDLER_TEST_SHELLS", "").split(",")
"""`make check` runs the scripts under one shell: BUNDLER_TEST_SHELLS=dash. Without it all shells are used."""
SHELLS = tuple(shell for shell in ALL_SHELLS if CHOSEN == [""] or shell[0] in CHOSEN)
PINS = Path(__file__).parents[1] / "golden" / "pins.yaml"
TEMPLATES = Path(__file__).parents[2] / "templates"

Sh = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a script: sh(path, argument…, NAME=value…)."""


def link_parts(root: Path) -> None:
    """The parts of an installed bundle, for scripts that read them."""
    bundle = root / "opt/k8s/bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "lib").symlink_to(TEMPLATES / "common/lib")


def write_program(path: Path, text: str) -> None:
    """An executable in place of a real program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
