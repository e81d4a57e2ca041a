"""`bundler plan`: which hosts a new build changes, in which order, and what that interrupts.

The rules are those of install.sh (templates/common/lib/transaction/host-diff.sh), read from the
same unit files: a unit restarts if a path in its RestartOn changes, and a node is drained if a path
in a DrainOn changes.
"""

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.bundle.front import NODE_ENV
from bundler.bundle.inspect import BundleReport, inspect
from bundler.catalog import list_versions
from bundler.cluster.components import ETCD_STEPS, key_of, minor_of, row_for
from bundler.cluster.schema import Role
from bundler.errors import ConfigError, OutputError
from bundler.formats.shell_settings import read_settings
from bundler.render.bundle_manifest import ManifestEntry
from bundler.render.site_files import NONE, SITE_FILES
from bundler.state.state_id import SHOWN
from bundler.upgrade.addons import compare_addons, describe_addon
from bundler.upgrade.diff import Pair, pair_bundles
from bundler.upgrade.kubelet_state import list_manual_steps
from bundler.upgrade.node_labels import compare_node_labels, describe
from bundler.upgrade.runbook import GROUPS, group_of, is_late
from bundler.upgrade.text import TEXT_LIMIT

ROOTFS = "rootfs"
UNIT_FILES = "rootfs/etc/systemd/system/"
STEPPED = {"KUBERNETES_VERSION": "Kubernetes", "ETCD_VERSION": "etcd"}
"""Programs that are upgraded one minor at a time, and never downgraded by a minor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A unit that is restarted on a host."""

    unit: str
    because: tuple[str, ...]  # installed paths that change
    interruption: str  # `up to 5 s: what is not available`


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStep:
    """The changes on one host."""

    name: str
    address: str
    kind: str  # install | change | nothing
    added: tuple[str, ...] = ()  # installed paths
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarts: tuple[Restart, ...] = ()
    started: tuple[str, ...] = ()  # units that are new
    stopped: tuple[str, ...] = ()  # units that are removed
    is_drained: bool = False
    versions: tuple[str, ...] = ()  # `Kubernetes 1.20.2 → 1.20.3`
    by_hand: tuple[str, ...] = ()  # what to do before install.sh
    one_way: str = ""  # why a rollback is not possible
    not_compared: str = ""  # why secret files count as changed


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStage:
    """A group of hosts; the next group starts after all of them are done."""

    title: str
    how: str
    hosts: tuple[HostStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePlan:
    """All steps from one directory of bundles to another."""

    cluster: str
    leaving: tuple[HostStep, ...]  # hosts without a bundle in the new build
    stages: tuple[RolloutStage, ...]
    addons: tuple[str, ...] = ()  # that the first control plane applies or deletes
    node_labels: tuple[str, ...] = ()  # what the first control plane that is installed changes


def make_upgrade_plan(before: Path, after: Path, *, new_state: bool = False) -> UpgradePlan:
    """List what `after`, installed over `before`, changes on each host, in the runbook's order.

    Raises ConfigError for bundles of two clusters, for a skipped or downgraded minor, and unless
    `new_state` for bundles of two states; OutputError if a bundle cannot be read or differs from
    its manifest.
    """
    pairs = [(pair, *_read_pair(pair)) for pair in pair_bundles(before, after)]
    reports = [report for _, *both in pairs for report in both if report]
    if len(names := {report.facts.get("CLUSTER", "") for report in reports}) > 1:
        raise ConfigError(
            f"the bundles belong to {len(names)} clusters ({', '.join(sorted(names))});"
            " give two builds of one cluster"
        )
    if not new_state:
        _check_states(pairs)
    _check_versions([(old, new) for _, old, new in pairs if old and new])
    stages: dict[int, list[HostStep]] = {}
    leaving = []
    planned = _list_planned([new for _, _, new in pairs if new])
    for _, old, new in sorted(pairs, key=lambda pair: is_late(_roles_of(pair[2] or pair[1]))):
        if not new:
            assert old is not None  # noqa: S101 - a pair has at least one
            if old.facts["NODE"] in planned:
                stages.setdefault(group_of(_roles_of(old)), []).append(_describe(old, "nothing"))
            else:
                leaving.append(_describe(old, "leave"))
            continue
        step = _compare(old, new) if old else _describe(new, "install")
        stages.setdefault(group_of(_roles_of(new)), []).append(step)
    return UpgradePlan(
        cluster=next(iter(names), ""),
        leaving=tuple(leaving),
        stages=tuple(
            RolloutStage(title=GROUPS[at][0], how=GROUPS[at][1], hosts=tuple(stages[at]))
            for at in sorted(stages)
        ),
        node_labels=tuple(_list_node_labels(pairs)),
        addons=tuple(_list_addons(pairs)),
    )


def _list_planned(reports: list[BundleReport]) -> frozenset[str]:
    """List the nodes of the new cluster.yaml: an add-on bundle leaves out hosts that stay as is."""
    texts = (report.texts.get(NODE_ENV, b"").decode() for report in reports)
    rows = (row for text in texts for row in read_settings(text).get("NODES", "").split())
    return frozenset(row.partition("|")[0] for row in rows)


def _list_addons(
    pairs: list[tuple[Pair, BundleReport | None, BundleReport | None]],
) -> Iterator[str]:
    """Yield what differs in add-ons: the same on every control plane."""
    for _, old, new in pairs:
        if old and new and Role.CONTROL_PLANE in _roles_of(new):
            yield from map(describe_addon, compare_addons(old, new))
            return


def _list_node_labels(
    pairs: list[tuple[Pair, BundleReport | None, BundleReport | None]],
) -> Iterator[str]:
    """Yield what differs in the labels and taints of Nodes: the same on every control plane."""
    for _, old, new in pairs:
        if old and new and Role.CONTROL_PLANE in _roles_of(new):
            yield from map(describe, compare_node_labels(old, new))
            return


def _read_pair(pair: Pair) -> tuple[BundleReport | None, BundleReport | None]:
    return _read(pair.before), _read(pair.after)


def _read(path: Path | None) -> BundleReport | None:
    if not path:
        return None
    report = inspect(path, keep=TEXT_LIMIT)
    if report.faults:
        raise OutputError(
            f"{path}: {report.faults[0]}", hint=f"list all faults with: bundler inspect {path}"
        )
    return report


def _check_states(
    pairs: list[tuple[Pair, BundleReport | None, BundleReport | None]],
) -> None:
    """Check that all bundles were made with one state; bundles that do not name it are left out."""
    made: dict[str, Path] = {}
    for pair, old, new in pairs:
        for path, report in ((pair.before, old), (pair.after, new)):
            if path and report and (state_id := report.facts.get("STATE_ID")):
                made.setdefault(state_id, path)
    if len(made) > 1:
        shown = ", ".join(f"{path} with {state_id[:SHOWN]}" for state_id, path in made.items())
        raise ConfigError(
            f"the bundles were made with different states: {shown}; the installed hosts cannot join"
            " a cluster of another state",
            hint="build again with the state of the installed bundles (bundler state import FILE);"
            " if you want another cluster: --new-state",
        )


def _check_versions(pairs: list[tuple[BundleReport, BundleReport]]) -> None:
    """Check that no minor is skipped: https://kubernetes.io/releases/version-skew-policy/."""
    faults = []
    for old, new in pairs:
        for fact, program in STEPPED.items():
            one, other = old.facts.get(fact, ""), new.facts.get(fact, "")
            step = _minor(other) - _minor(one) if one and other else 0
            if step > 1:
                path = [f"{other.partition('.')[0]}.{_minor(one) + n}" for n in range(1, step)]
                faults.append(
                    f"{program} {one} to {other} skips a minor; build and install these one after"
                    f" another: {', '.join((*path, other))}"
                )
            elif step < 0:
                faults.append(
                    f"{program} {one} to {other}: a downgrade to an earlier minor is not supported"
                )
            elif step == 1 and fact == "ETCD_VERSION":
                faults += _check_etcd_step(one, other, old.facts.get("FEATURES", ""))
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def _check_etcd_step(old: str, new: str, features: str) -> Iterator[str]:
    """Yield a fault if the new minor of etcd cannot follow the old one, or start with its data."""
    if key_of(minor_of(new)) >= (3, 6) > key_of(minor_of(old)) and "flannel-etcd" in features:
        yield (
            f"etcd {old} to {new}: etcd has flannel's subnets in its v2 API, and {new} does not"
            f" start with such data; install network.flannel.store kubernetes with etcd {old}"
            " first, and remove the data as etcd's guide says:"
            " https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/"
        )
    oldest = row_for(ETCD_STEPS, minor_of(new))
    if oldest and key_of(old) < key_of(oldest):
        yield (
            f"etcd {old} to {new}: etcd {minor_of(new)} can only follow {oldest} or later;"
            f" set etcd.version to {_newest_patch(oldest)}, build and install that on every member,"
            f" then {new}"
        )


def _newest_patch(version: str) -> str:
    """Return the newest pinned patch of its minor."""
    return [v for v in list_versions("etcd") if minor_of(v) == minor_of(version)][-1]


def _minor(version: str) -> int:
    return int(minor_of(version).partition(".")[2])


def _roles_of(report: BundleReport | None) -> frozenset[Role]:
    return frozenset(
        Role(word) for word in (report.facts.get("ROLES", "") if report else "").split()
    )


def _describe(report: BundleReport, kind: str) -> HostStep:
    return HostStep(name=report.facts["NODE"], address=report.facts.get("ADDRESS", ""), kind=kind)


def _compare(before: BundleReport, after: BundleReport) -> HostStep:
    ours, theirs = _installed(before), _installed(after)
    added = tuple(sorted(theirs.keys() - ours.keys()))
    removed = tuple(sorted(ours.keys() - theirs.keys()))
    changed = tuple(
        path
        for path in sorted(ours.keys() & theirs.keys())
        if (ours[path].sha256, ours[path].mode) != (theirs[path].sha256, theirs[path].mode)
    )
    touched = tuple(sorted((*added, *changed, *removed)))
    ours_units, their_units = (report.facts.get("UNITS", "").split() for report in (before, after))
    kept = tuple(_list_restarts(before, after, touched))
    etcd = [after.facts.get("ETCD_VERSION", ""), before.facts.get("ETCD_VERSION", "")]
    is_one_way = all(etcd) and minor_of(etcd[0]) != minor_of(etcd[1])
    return HostStep(
        name=after.facts["NODE"],
        address=after.facts.get("ADDRESS", ""),
        kind="change" if touched else "nothing",
        added=added,
        changed=changed,
        removed=removed,
        restarts=(
            *(restart for restart, _ in kept if restart.unit in ours_units),
            *_list_host_restarts(before, after, touched),
        ),
        started=tuple(unit for unit in their_units if unit not in ours_units),
        stopped=tuple(unit for unit in ours_units if unit not in their_units),
        is_drained=any(drains for _, drains in kept),
        versions=tuple(
            f"{program} {one} → {other}"
            for fact, program in STEPPED.items()
            if (one := before.facts.get(fact, "")) != (other := after.facts.get(fact, ""))
        ),
        by_hand=list_manual_steps(before, after),
        not_compared=_explain_seals(before, after),
        one_way=f"etcd {etcd[0]} converts its data, which {etcd[1]} cannot read afterwards;"
        " install.sh takes a snapshot first"
        if is_one_way
        else "",
    )


def _explain_seals(before: BundleReport, after: BundleReport) -> str:
    """Say why sealed files cannot be compared; empty if they can."""
    seals = [report.parsed.seal for report in (before, after)]
    if len({seal and seal.key_id for seal in seals}) == 1:
        return ""
    how = "with another key" if all(seals) else "in only one of the builds"
    return f"secret files are sealed {how}: all of them count as changed here; install.sh compares"


def _installed(report: BundleReport) -> Mapping[str, ManifestEntry]:
    """Map paths on the host to entries, without the packages of the operating system."""
    return {
        entry.path.removeprefix(ROOTFS)
        if entry.path.startswith(f"{ROOTFS}/")
        else f"/opt/k8s/bundle/{entry.path}": entry
        for entry in report.parsed.list_contents()
        if not entry.path.startswith("packages/")
    }


def _list_restarts(
    before: BundleReport, after: BundleReport, touched: tuple[str, ...]
) -> Iterator[tuple[Restart, bool]]:
    """Yield each unit of the new bundle that restarts, and whether the node is drained for it."""
    for unit in after.facts.get("UNITS", "").split():
        fields = _read_unit(unit, after, before)
        watched = (f"/etc/systemd/system/{unit}", *fields.get("RestartOn", "").split())
        named = _read_site_files(before, after, unit)
        because = tuple(path for path in touched if path.startswith(watched) or path in named)
        if not because:
            continue
        drain = tuple(fields.get("DrainOn", "").split())
        yield (
            Restart(unit=unit, because=because, interruption=fields.get("Interruption", "")),
            bool(drain) and any(path.startswith(drain) for path in touched),
        )


def _list_host_restarts(
    before: BundleReport, after: BundleReport, touched: tuple[str, ...]
) -> Iterator[Restart]:
    """Yield the units of the host that changed files of the site name."""
    own = after.facts.get("UNITS", "").split()
    rows = [row for row in _list_site_rows(before, after) if row[0] in touched]
    restarts = [unit for row in rows for unit in row[2].split()]
    reloads = [unit for row in rows for unit in row[3].split()]
    for unit in dict.fromkeys((*restarts, *reloads)):
        if unit in {NONE, *own}:
            continue
        named = _read_site_files(before, after, unit)
        what = "a unit of the host" if unit in restarts else "a unit of the host, which is reloaded"
        because = tuple(path for path in touched if path in named)
        yield Restart(unit=unit, because=because, interruption=what)


def _read_site_files(before: BundleReport, after: BundleReport, unit: str) -> frozenset[str]:
    """Return the paths of the site's files, before and after, that name a unit."""
    rows = _list_site_rows(before, after)
    return frozenset(row[0] for row in rows if unit in f"{row[2]} {row[3]}".split())


def _list_site_rows(*reports: BundleReport) -> Iterator[list[str]]:
    """Yield path, owner, restart and reload of each file of the site."""
    for report in reports:
        for line in report.texts.get(SITE_FILES, b"").decode().splitlines():
            row = line.split("\t")
            if len(row) == 4:
                yield row


def _read_unit(unit: str, *reports: BundleReport) -> Mapping[str, str]:
    """Read the section X-Bundler of a unit; a delta leaves out unit files that stay."""
    for report in reports:
        if text := report.texts.get(UNIT_FILES + unit):
            parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            content = text.decode()
            at = content.find("[X-Bundler]")
            parser.read_string(content[at:] if at >= 0 else "")
            return dict(parser["X-Bundler"]) if at >= 0 else {}
    raise OutputError(
        f"{unit}: the file of this unit is in neither bundle",
        hint="give complete bundles, not deltas (--since)",
    )
