"""Where the project's files are, and the lab's."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TESTS = PROJECT / "tests"
PINS = TESTS / "golden" / "pins.yaml"
TEMPLATES = PROJECT / "templates"
EXAMPLES = PROJECT / "examples"
LAB_CACHE = Path(os.environ.get("BUNDLER_LAB_CACHE") or Path.home() / ".cache" / "bundler-lab")
"""What `make lab` obtained: programs, packages, images."""
