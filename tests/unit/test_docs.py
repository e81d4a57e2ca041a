"""Generated documents are up to date, and links lead to files that exist."""

import re
import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def test_the_generated_reference_pages_are_up_to_date() -> None:
    make_pages = runpy.run_path(str(PROJECT / "scripts" / "make_reference.py"))["make_pages"]
    stale = [path.name for path, text in make_pages().items() if path.read_text() != text]
    assert stale == [], "run: make docs"


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))], ids=str
)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_the_readme_names_what_tests_skip_in_their_words() -> None:
    tests = Path(__file__).parents[1]
    text = "".join(path.read_text() for path in tests.rglob("*.py") if path != Path(__file__))
    skips = re.findall(r"pytest\.skip\(|skipif\(", text)
    reasons = re.findall(r"(?:pytest\.skip\(|reason=)\s*f?\"([^\"]*?cannot [^\":]*):", text)
    assert len(reasons) == len(skips) > 10
    readme = (tests.parent / "README.md").read_text()
    assert [reason for reason in reasons if reason not in readme] == []
