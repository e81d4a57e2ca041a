"""Which project each upstream program is of, and under which licence that project publishes it.

licences.tsv: component, program (empty: all others of its archive), repository on GitHub, whether
the program's version is the component's (`same`) or one of its `own` that the archive does not
say, licence (SPDX), and where the project says so. What its libraries are under is not in it.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bundler.catalog import Artifact, artifact_url, find_artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Where a program comes from."""

    repository: str
    is_versioned: bool  # whether the component's version is the program's
    licence: str  # an SPDX identifier


def find_project(component: str, program: str = "") -> Project | None:
    """The project behind a component, or behind one program of it; None where no row says."""
    rows = _projects()
    return rows.get((component, program)) or rows.get((component, ""))


def is_published_by_project(artifact: Artifact, *, is_vouched: bool) -> bool:
    """Whether the file is its project's own release.

    It is where the catalogue has its digest, or where upstream itself vouches (`is_vouched`) for
    what is at upstream's own address. Anything else may be anything.
    """
    key = artifact.component, artifact.version, artifact.arch
    pinned = find_artifact(*key)
    is_pinned = pinned is not None and (pinned.algorithm, pinned.digest) == (
        artifact.algorithm,
        artifact.digest,
    )
    return is_pinned or (is_vouched and artifact.url == artifact_url(*key))


@cache
def _projects() -> dict[tuple[str, str], Project]:
    text = (files(__package__) / "licences.tsv").read_text(encoding="utf-8")
    return {
        (row["component"], row["program"]): Project(
            repository=row["repository"],
            is_versioned=row["version"] == "same",
            licence=row["licence"],
        )
        for row in csv.DictReader(text.splitlines(), delimiter="\t")
    }
