"""The project and the licence of each upstream program.

licences.tsv: component, program (empty: all other programs of its archive), GitHub repository,
version (`same`: the component's; `own`: another one, which the archive does not name), licence
(SPDX), and where the project states it. Licences of linked libraries are not listed.
"""

from dataclasses import dataclass
from functools import cache

from bundler.catalog import Artifact, artifact_url, find_artifact, read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamProject:
    """The project of a program."""

    repository: str
    is_versioned: bool  # whether the component's version is the program's
    licence: str  # an SPDX identifier


def find_upstream_project(component: str, program: str = "") -> UpstreamProject | None:
    """The project of a component, or of one of its programs; None without a row."""
    rows = _projects()
    return rows.get((component, program)) or rows.get((component, ""))


def is_published_by_project(artifact: Artifact, *, is_confirmed: bool) -> bool:
    """Whether the file is known to be its project's own release.

    It is if the catalog has its digest, or if it comes from upstream's URL and upstream's checksum
    or signature confirms it (`is_confirmed`).
    """
    key = artifact.component, artifact.version, artifact.arch
    pinned = find_artifact(*key)
    is_pinned = pinned is not None and (pinned.algorithm, pinned.digest) == (
        artifact.algorithm,
        artifact.digest,
    )
    return is_pinned or (is_confirmed and artifact.url == artifact_url(*key))


@cache
def _projects() -> dict[tuple[str, str], UpstreamProject]:
    return {
        (row["component"], row["program"]): UpstreamProject(
            repository=row["repository"],
            is_versioned=row["version"] == "same",
            licence=row["licence"],
        )
        for row in read_table("licences.tsv")
    }
