""".deb files: what they say of themselves, what they need of one another, and in which order.

Source: deb-control(5), Debian policy 7 (relationships between packages).
"""

import re
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from bundler.errors import ArtifactError

FIELDS = (
    "Package",
    "Version",
    "Architecture",
    "Installed-Size",
    "Pre-Depends",
    "Depends",
    "Provides",
)
ALTERNATIVE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(:\w+)?\s*(\(\s*(?P<op>[<>=]+)\s*(?P<version>[^\s)]+)\s*\))?"
)
OPERATORS = {"<<": "lt", "<=": "le", "=": "eq", ">=": "ge", ">>": "gt", "<": "le", ">": "ge"}
"""As dpkg --compare-versions has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A package by name, and how its version must compare; `op` is empty where any will do."""

    name: str
    op: str = ""
    version: str = ""

    @property
    def text(self) -> str:
        """`name` or `name:ge:1.2`, as install.sh reads it."""
        return f"{self.name}:{self.op}:{self.version}" if self.op else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A .deb file and what its control file says."""

    path: Path
    name: str
    version: str
    arch: str
    kilobytes: int  # when installed
    needs: tuple[tuple[Need, ...], ...]  # each group: any one of these
    provides: tuple[Need, ...]

    @property
    def file_name(self) -> str:
        """As apt names it: a colon in a version is %3a."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"


def read_deb(path: Path) -> Deb:
    """What a .deb file says; ArtifactError where it is none, or this machine has no dpkg-deb."""
    try:
        done = subprocess.run(
            ["dpkg-deb", "--field", str(path), *FIELDS], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ArtifactError(
            "packages are read with dpkg-deb, which this machine does not have",
            hint="install dpkg (Debian, Ubuntu, Fedora, Arch and Homebrew have it)",
        ) from error
    fields = HeaderParser().parsestr(done.stdout)
    if done.returncode or not all(fields.get(name) for name in FIELDS[:3]):
        reason = done.stderr.strip().partition("\n")[0].removeprefix("dpkg-deb: error: ")
        raise ArtifactError(f"{path}: no Debian package: {reason or 'its control file is odd'}")
    size = fields.get("Installed-Size", "")
    return Deb(
        path=path,
        name=fields["Package"],
        version=fields["Version"],
        arch=fields["Architecture"],
        kilobytes=int(size) if size.isdigit() else path.stat().st_size >> 10,
        needs=tuple(
            dict.fromkeys(
                group
                for field in ("Pre-Depends", "Depends")
                for group in parse_relations(fields.get(field, ""))
            )
        ),
        provides=tuple(
            need for group in parse_relations(fields.get("Provides", "")) for need in group
        ),
    )


def parse_relations(text: str) -> Iterator[tuple[Need, ...]]:
    """`a (>= 1) | b, c` → a tuple of alternatives for each comma-separated part."""
    for part in text.split(","):
        group = []
        for alternative in part.split("|"):
            if match := ALTERNATIVE.fullmatch(alternative.strip()):
                op = OPERATORS.get(match["op"] or "", "")
                group.append(Need(name=match["name"], op=op, version=match["version"] or ""))
        if group:
            yield tuple(group)


def select_debs(wanted: Collection[str], debs: Iterable[Deb]) -> tuple[Deb, ...]:
    """The wanted packages and what they need of the others, each after what it needs.

    What no package is or provides is taken to be on the host: install.sh looks.
    """
    by_name = {deb.name: deb for deb in debs}
    chosen: dict[str, Deb] = {}
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


def _first_bringing(group: tuple[Need, ...], by_name: Mapping[str, Deb]) -> str:
    for need in group:
        if need.name in by_name:
            return need.name
    for need in group:
        if found := _providers(need, by_name):
            return found[0]
    return ""


def _providers(need: Need, by_name: Mapping[str, Deb]) -> list[str]:
    return sorted(d.name for d in by_name.values() if any(p.name == need.name for p in d.provides))


def render_list(debs: tuple[Deb, ...], pairs: tuple[str, ...]) -> str:
    """The list that install.sh reads, in the order of installation.

    A line a package: file, name, version, architecture, kilobytes when installed, why it is there,
    and what it needs. `why` is `wanted`, `wanted:COMMAND` (needless where the host has that) or
    `needed`. Needs are separated by commas, alternatives by `|`.
    """
    by_name = {deb.name: deb for deb in debs}
    reasons = {
        name: f"wanted:{command}" if command else "wanted"
        for command, _, name in (pair.partition(":") for pair in pairs)
    }
    return "".join(
        f"{deb.file_name} {deb.name} {deb.version} {deb.arch} {deb.kilobytes}"
        f" {reasons.get(deb.name, 'needed')} {_render_needs(deb, by_name) or '-'}\n"
        for deb in debs
    )


def _render_needs(deb: Deb, by_name: Mapping[str, Deb]) -> str:
    """In words; who provides a virtual name in the bundle is one more alternative."""

    def spell(group: tuple[Need, ...]) -> str:
        more = (
            Need(name=name, op="ge", version=by_name[name].version)
            for need in group
            for name in _providers(need, by_name)
        )
        return "|".join(dict.fromkeys(need.text for need in (*group, *more)))

    own = {deb.name} | {need.name for need in deb.provides}
    return ",".join(
        dict.fromkeys(spell(group) for group in deb.needs if own.isdisjoint(n.name for n in group))
    )
