"""Where the project's files are."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
TESTS = PROJECT / "tests"
PINS = TESTS / "golden" / "pins.yaml"
TEMPLATES = PROJECT / "templates"
EXAMPLES = PROJECT / "examples"
