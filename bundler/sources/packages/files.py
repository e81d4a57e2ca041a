"""Package files, and the order in which a node installs them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageNeed:
    """A package that another one needs; `op` is empty if any version is accepted."""

    name: str
    op: str = ""
    version: str = ""

    @property
    def text(self) -> str:
        """`name` or `name:ge:1.2`, the format of install.sh."""
        return f"{self.name}:{self.op}:{self.version}" if self.op else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """A package file and its control fields; `arch` in Kubernetes' spelling, or `all`."""

    path: Path
    file_name: str  # the name in the distribution
    name: str
    version: str
    arch: str
    kilobytes: int  # installed size
    needs: tuple[tuple[PackageNeed, ...], ...]  # each group: alternatives
    provides: tuple[PackageNeed, ...]
    source: str = ""  # NAME, NAME@VERSION or a .src.rpm: of its source, if that differs
    release: str = ""  # the distribution that it is for


def select_files(wanted: Collection[str], files: Iterable[PackageFile]) -> tuple[PackageFile, ...]:
    """The wanted packages and their dependencies among `files`, each after its dependencies.

    A dependency that no file provides is expected on the host; install.sh checks that.
    """
    by_name = {file.name: file for file in files}
    chosen: dict[str, PackageFile] = {}
    started: set[str] = set()

    def add(name: str) -> None:
        if name in started:  # dependencies may be circular
            return
        started.add(name)
        for group in by_name[name].needs:
            if found := _find_provider(group, by_name):
                add(found)
        chosen[name] = by_name[name]

    for name in sorted(wanted):
        if name in by_name:
            add(name)
    return tuple(chosen.values())


def _find_provider(group: tuple[PackageNeed, ...], by_name: Mapping[str, PackageFile]) -> str:
    for need in group:
        if need.name in by_name:
            return need.name
    for need in group:
        if found := _providers(need, by_name):
            return found[0]
    return ""


def _providers(need: PackageNeed, by_name: Mapping[str, PackageFile]) -> list[str]:
    return sorted(d.name for d in by_name.values() if any(p.name == need.name for p in d.provides))


def render_list(files: tuple[PackageFile, ...], pairs: tuple[str, ...]) -> str:
    """The list that install.sh reads, in the order of installation.

    One line for each package: file, name, version, architecture, installed kilobytes, reason and
    needs. The reason is `wanted`, `wanted:COMMAND` (not installed if the host has the command) or
    `needed`. Needs are separated by commas, alternatives by `|`.
    """
    by_name = {file.name: file for file in files}
    reasons = {
        name: f"wanted:{command}" if command else "wanted"
        for command, _, name in (pair.partition(":") for pair in pairs)
    }
    return "".join(
        f"{file.file_name} {file.name} {file.version} {file.arch} {file.kilobytes}"
        f" {reasons.get(file.name, 'needed')} {_render_needs(file, by_name) or '-'}\n"
        for file in files
    )


def _render_needs(file: PackageFile, by_name: Mapping[str, PackageFile]) -> str:
    """The needs as text; a package of the bundle that provides a need is another alternative."""

    def spell(group: tuple[PackageNeed, ...]) -> str:
        more = (
            PackageNeed(name=name, op="ge", version=by_name[name].version)
            for need in group
            for name in _providers(need, by_name)
        )
        return "|".join(dict.fromkeys(need.text for need in (*group, *more)))

    own = {file.name} | {need.name for need in file.provides}
    return ",".join(
        dict.fromkeys(spell(group) for group in file.needs if own.isdisjoint(n.name for n in group))
    )
