"""Documents that are made from the source are not stale."""

import re
import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def test_the_reference_of_cluster_yaml_is_up_to_date() -> None:
    made = runpy.run_path(str(PROJECT / "scripts" / "make_reference.py"))["make_reference"]()
    assert (PROJECT / "docs" / "cluster-yaml.md").read_text() == made, "run: make docs"


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
