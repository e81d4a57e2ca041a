"""Package files of a distribution, and in which order those that a node wants are installed."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageNeed:
    """A package by name, and how its version must compare; `op` is empty where any will do."""

    name: str
    op: str = ""
    version: str = ""

    @property
    def text(self) -> str:
        """`name` or `name:ge:1.2`, as install.sh reads it."""
        return f"{self.name}:{self.op}:{self.version}" if self.op else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """A file and what it says of itself; `arch` in Kubernetes' spelling, or `all`."""

    path: Path
    file_name: str  # as its distribution names it
    name: str
    version: str
    arch: str
    kilobytes: int  # when installed
    needs: tuple[tuple[PackageNeed, ...], ...]  # each group: any one of these
    provides: tuple[PackageNeed, ...]


def select_files(wanted: Collection[str], files: Iterable[PackageFile]) -> tuple[PackageFile, ...]:
    """The wanted packages and what they need of the others, each after what it needs.

    What no package is or provides is taken to be on the host: install.sh looks.
    """
    by_name = {file.name: file for file in files}
    chosen: dict[str, PackageFile] = {}
    begun: set[str] = set()

    def add(name: str) -> None:
        if name in begun:
            return
        begun.add(name)
        for group in by_name[name].needs:
            if found := _first_bringing(group, by_name):
                add(found)
        chosen[name] = by_name[name]

    for name in sorted(wanted):
        if name in by_name:
            add(name)
    return tuple(chosen.values())


def _first_bringing(group: tuple[PackageNeed, ...], by_name: Mapping[str, PackageFile]) -> str:
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

    A line a package: file, name, version, architecture, kilobytes when installed, why it is there,
    and what it needs. `why` is `wanted`, `wanted:COMMAND` (needless where the host has that) or
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
    """In words; who provides a virtual name in the bundle is one more alternative."""

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
