"""Release lines that upstream no longer maintains, and what to take instead.

Warnings compare with the day of the command. What is in a bundle depends on no clock: node.env has
the dates, and verify.sh compares them with the host's day.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from bundler.catalog import list_versions
from bundler.catalog.lifecycles import ReleaseLine, find_lifecycle, list_lifecycles, list_lines
from bundler.cluster.components import MINORS, minor_of
from bundler.cluster.os_packages import RELEASES
from bundler.cluster.plan import choose_etcd, runtime_versions
from bundler.cluster.problem import Problem, suggest
from bundler.cluster.schema import Cluster, Containerd

KUBERNETES = "kubernetes"
BY_ONE = frozenset({KUBERNETES, "etcd"})
"""Components that are upgraded one minor at a time."""
LABELS = {KUBERNETES: "Kubernetes", "docker": "Docker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LineInUse:
    """A release line that the cluster uses, and the key of cluster.yaml that chooses it."""

    row: ReleaseLine
    version: str
    path: tuple[str | int, ...]

    @property
    def label(self) -> str:
        """`Kubernetes 1.20`."""
        return f"{LABELS.get(self.row.component, self.row.component)} {self.row.line}"


def check_lifecycle(cluster: Cluster, today: date | None) -> Iterator[Problem]:
    """Lines that have ended and are not accepted, and accepted names that nothing uses.

    Without `today` no date is compared.
    """
    if minor_of(cluster.kubernetes.version) not in MINORS:
        return  # an error of its own
    lines = list_lines_in_use(cluster)
    for one in lines:
        if today and one.row.has_ended(today) and one.row.name not in cluster.lifecycle.accept:
            text = f"{describe_end(one)}: {advise(one, lines, today)} ({one.row.name})"
            yield Problem(path=one.path, text=text, is_error=False, ended=one.row)
    used = {one.row.name for one in lines}
    known = sorted({row.name for row in list_lifecycles()})
    for name in cluster.lifecycle.accept:
        if name not in known:
            text = f"bundler has no release line of this name{suggest(name, known)}"
        elif name not in used:
            text = f"nothing in this file uses {name}: remove it"
        else:
            continue
        yield Problem(path=("lifecycle", "accept", name), text=text)


def list_lines_in_use(cluster: Cluster) -> tuple[LineInUse, ...]:
    """The lines of the table that the cluster uses: Kubernetes, etcd, runtime, distribution."""
    versions = {KUBERNETES: cluster.kubernetes.version, "etcd": choose_etcd(cluster)}
    versions |= runtime_versions(cluster)
    paths = _list_paths(cluster)
    used: list[tuple[str, str, tuple[str | int, ...]]] = [
        (name, version, paths.get(name, (KUBERNETES, "version")))
        for name, version in versions.items()
    ]
    for release in cluster.list_packages():
        family, _, version = release.partition("-")
        used.append((family, version, _find_release(cluster, release)))
    found = ((find_lifecycle(name, version), version, path) for name, version, path in used)
    return tuple(
        LineInUse(row=row, version=version, path=path) for row, version, path in found if row
    )


def _find_release(cluster: Cluster, release: str) -> tuple[str | int, ...]:
    """The key that names a distribution: of the cluster, or of the first host with it."""
    if cluster.packages and cluster.packages.os == release:
        return "packages", "os"
    nodes = (n for n, node in enumerate(cluster.nodes) if node.packages)
    index = next(n for n in nodes if (own := cluster.nodes[n].packages) and own.os == release)
    return "nodes", index, "packages", "os"


def list_ended(cluster: Cluster, on: date) -> Iterator[tuple[LineInUse, str]]:
    """The lines that have ended by that day, accepted or not, each with what to take instead."""
    lines = list_lines_in_use(cluster)
    for one in lines:
        if one.row.has_ended(on):
            yield one, advise(one, lines, on)


def describe_end(one: LineInUse) -> str:
    """`Kubernetes 1.20 reached its end of life on 2022-02-28 (last release 1.20.15)`."""
    last = f" (last release {one.row.last})" if one.row.last else ""
    return f"{one.label} reached its end of life on {one.row.ends}{last}"


def advise(one: LineInUse, lines: tuple[LineInUse, ...], on: date) -> str:
    """What to take instead of a line that has ended, and how many upgrades away it is."""
    component = one.row.component
    rows = list_lines(component)
    later = [row for row in rows[rows.index(one.row) + 1 :] if _newest(row)]
    maintained = [row for row in later if not row.has_ended(on)]
    if not maintained:
        return "this version of bundler has no newer one that is maintained: use a newer bundler"
    wanted = maintained[0] if component in BY_ONE else maintained[-1]
    until = f" (until {wanted.ends})" if wanted.ends else ""
    text = f"{_newest(wanted)} is maintained{until}"
    if component in BY_ONE:
        away = later.index(wanted) + 1
        steps = f"{away} upgrades" if away > 1 else "one upgrade"
        text += f", {steps} away; the next is {later[0].line}"
    needs_kubernetes = component != KUBERNETES and component not in FAMILIES
    if needs_kubernetes and any(
        other.row.component == KUBERNETES and other.row.has_ended(on) for other in lines
    ):
        text += "; upgrade Kubernetes first"
    return text


def _newest(row: ReleaseLine) -> str:
    """What cluster.yaml can name of the line; empty if this version of bundler has nothing."""
    if row.component == KUBERNETES:
        return row.line if row.line in MINORS else ""
    if row.component in FAMILIES:
        return row.name if row.name in RELEASES else ""
    return next((v for v in reversed(list_versions(row.component)) if row.holds(v)), "")


def _list_paths(cluster: Cluster) -> Mapping[str, tuple[str, ...]]:
    """The key that chooses a component's line, where it is not the default of the minor."""
    runtime = cluster.runtime
    chosen = {
        "etcd": (("etcd", "version"), cluster.etcd.version),
        runtime.engine: (("runtime", "version"), runtime.version),
        "runc": (("runtime", "runc"), isinstance(runtime, Containerd) and runtime.runc),
    }
    return {name: path for name, (path, value) in chosen.items() if value}


FAMILIES = frozenset(name.partition("-")[0] for name in RELEASES)
"""Distributions, by their ID."""
