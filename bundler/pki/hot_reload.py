"""Hot reload: which program reloads which of its certificate files without a restart.

catalog/hot_reload.tsv: component, path, the first version that reloads the file (empty: no version
does), and the source of that fact. A program reloads a certificate together with its key, so both
files are rows. CA files are listed as not reloaded: a program has several readers of them, and if
one reader kept only the old CA, that would be worse than a restart.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bundler.cluster.components import key_of
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HotReloadRow:
    """One file that a program reads: a path, or a path prefix."""

    component: str
    path: str
    since: str | None  # Kubernetes minor, or the component's own version
    source: str


def list_files_read_at_start(cluster: Cluster, component: str) -> tuple[str, ...]:
    """The files that this version of the component reads only when it starts."""
    version = version_of(cluster, component)
    return tuple(
        row.path
        for row in list_hot_reload_rows()
        if row.component == component and not _is_reloaded(row, version)
    )


@cache
def list_hot_reload_rows() -> tuple[HotReloadRow, ...]:
    """Read the complete table."""
    text = (files("bundler.catalog") / "hot_reload.tsv").read_text(encoding="utf-8")
    return tuple(
        HotReloadRow(
            component=row["component"],
            path=row["path"],
            since=row["since"] or None,
            source=row["source"],
        )
        for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    )


def _is_reloaded(row: HotReloadRow, version: str) -> bool:
    return row.since is not None and key_of(row.since) <= key_of(version)
