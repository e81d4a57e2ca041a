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
