"""Settings that weaken the cluster: what `extra` and other keys may not do, or only when accepted.

catalog/weakenings.tsv has a row for each setting:

name       what security.accept says; empty: always refused
component  as under `extra`; `*`: every component; cluster.yaml: the file's own keys
setting    `--flag`, a field, or `gate NAME`; `*` stands for any key
weak       which values are weak (WEAK)
since      the first Kubernetes minor for which it holds; empty: all
why        what the cluster loses; for refused rows also what to write instead
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from typing import Any

from bundler.catalog import read_table
from bundler.cluster.accepted import is_within
from bundler.cluster.components import minor_of
from bundler.cluster.problem import Problem, suggest
from bundler.cluster.schema import Cluster

OWN_KEYS = "cluster.yaml"
TRUE = frozenset({"1", "t", "true"})
FALSE = frozenset({"0", "f", "false"})
"""Go's strconv.ParseBool, in lower case."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakening:
    """One row of the table."""

    name: str
    component: str
    setting: str
    weak: str
    since: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWeakening:
    """A weakening in cluster.yaml, with its place and value."""

    row: Weakening
    path: Path
    value: object


def check_weakenings(cluster: Cluster) -> Iterator[Problem]:
    """Refused settings, weak ones that are not accepted, and accepted names that nothing needs."""
    found = list(find_weakenings(cluster))
    for one in found:
        if not one.row.name:
            yield Problem(path=one.path, text=one.row.why)
        elif one.row.name not in cluster.security.accept:
            text = f"{_show(one)} weakens the cluster ({one.row.name}): {one.row.why}"
            yield Problem(path=one.path, text=text, is_error=False, weakening=one.row.name)
    needed = {one.row.name for one in found}
    names = sorted({row.name for row in list_weakenings()} - {""})
    for index, name in enumerate(cluster.security.accept):
        if name not in names:
            text = f"{name} is not the name of a weakening{suggest(name, names)}"
        elif name not in needed:
            text = f"nothing in this file needs {name}: remove it"
        elif name in cluster.security.accept[:index]:
            text = f"{name} is listed twice: keep one"
        else:
            continue
        yield Problem(path=("security", "accept", index), text=text)


def find_weakenings(cluster: Cluster) -> Iterator[FoundWeakening]:
    """Every weak value in cluster.yaml, accepted or not: of all hosts, then of single ones."""
    ours = list(_find_on_host(cluster))
    yield from ours
    of_all = [(one.row, one.path, one.value) for one in ours]
    for index, node in enumerate(cluster.nodes):
        if (host := cluster.on_host(node)) is cluster:
            continue
        for one in _find_on_host(host):
            if (one.row, one.path, one.value) not in of_all:
                yield replace(one, path=("nodes", index, *one.path))


def _find_on_host(cluster: Cluster) -> Iterator[FoundWeakening]:
    minor = minor_of(cluster.kubernetes.version)
    own = cluster.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"extra", "nodes", "security"}
    )
    for row in list_weakenings():
        if not is_within(row.since, None, minor):
            continue
        if row.component == OWN_KEYS:
            yield from _find_fields(row, own, ())
            continue
        for component, extra in cluster.extra.items():
            if row.component in {component, "*"}:
                where = ("extra", component)
                if row.setting.startswith("--"):
                    yield from _find_flag(row, extra.flags, (*where, "flags"))
                elif row.setting.startswith("gate "):
                    yield from _find_gate(row, extra.flags, extra.config, where)
                else:
                    yield from _find_fields(row, extra.config, (*where, "config"))


def list_accepted(cluster: Cluster) -> Iterator[FoundWeakening]:
    """The weak values that security.accept names, in the order of the names."""
    found = [one for one in find_weakenings(cluster) if one.row.name in cluster.security.accept]
    yield from sorted(found, key=lambda one: (one.row.name, tuple(map(str, one.path))))


@cache
def list_weakenings() -> tuple[Weakening, ...]:
    """Read the complete table."""
    return tuple(Weakening(**row) for row in read_table("weakenings.tsv"))


def _find_flag(row: Weakening, flags: Mapping[str, Any], where: Path) -> Iterator[FoundWeakening]:
    name = row.setting.removeprefix("--")
    if name in flags:
        value = flags[name]
        # lists of flags are CSV: pflag's StringSlice
        items = next(csv.reader([value]), []) if isinstance(value, str) else [value]
        if is_weak(row.weak, items):
            yield FoundWeakening(row=row, path=(*where, name), value=value)


def _find_gate(
    row: Weakening, flags: Mapping[str, Any], config: Mapping[str, Any], where: Path
) -> Iterator[FoundWeakening]:
    gate = row.setting.removeprefix("gate ")
    pairs = (part.partition("=") for part in str(flags.get("feature-gates", "")).split(","))
    from_flag = {name.strip(): value.strip() for name, _, value in pairs}
    from_config = config.get("featureGates")
    for path, gates in (
        ((*where, "flags", "feature-gates"), from_flag),
        ((*where, "config", "featureGates"), from_config),
    ):
        if isinstance(gates, Mapping) and gate in gates and is_weak(row.weak, [gates[gate]]):
            yield FoundWeakening(row=row, path=path, value=gates[gate])


def _find_fields(row: Weakening, data: Any, where: Path) -> Iterator[FoundWeakening]:
    for path, value in _select(data, tuple(row.setting.split(".")), where):
        items = value if isinstance(value, list) else [value]
        if is_weak(row.weak, items):
            yield FoundWeakening(row=row, path=path, value=value)


def _select(data: Any, names: tuple[str, ...], where: Path) -> Iterator[tuple[Path, Any]]:
    """The values at a path, in every item of a list; None where something else is in its place.

    Docker and containerd read keys in any case.
    """
    if not names:
        yield where, data
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _select(item, names, (*where, index))
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if names[0] == "*" or key.lower() == names[0].lower():
                yield from _select(value, names[1:], (*where, key))
    else:
        yield where, None


def is_weak(rule: str, items: list[Any]) -> bool:
    """Whether a value, as its items, is weak by a rule of the table."""
    kind = next(kind for kind in WEAK if rule == kind or rule.startswith(f"{kind} "))
    words = rule.removeprefix(kind).split()
    return WEAK[kind]([_text(item) for item in items], words)


def _text(item: object) -> str:
    """The item as a flag has it; empty for null and what is empty."""
    if isinstance(item, bool):
        return str(item).lower()
    return "" if item is None or item in ([], {}) else str(item)


def _is_outside(item: str) -> bool:
    """Whether HOST, HOST:PORT or :PORT can be reached from other hosts."""
    host = item.removeprefix("[").partition("]")[0] if item[:1] == "[" else item
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _is_in(item: str, least: str, most: str) -> bool:
    match = re.fullmatch(r"(-?[0-9]+)(ns|us|ms|s|m|h)?", item)
    return match is not None and int(least) <= int(match[1]) <= int(most)


WEAK: dict[str, Callable[[list[str], list[str]], bool]] = {
    "true": lambda items, _: any(item.lower() not in FALSE for item in items if item),
    "false": lambda items, _: any(item.lower() not in TRUE for item in items),
    "set": lambda items, _: any(items),
    "empty": lambda items, _: not all(items),
    "not 0": lambda items, _: any(item != "0" for item in items if item),
    "from": lambda items, words: any(_is_in(item, words[0], words[2]) for item in items),
    "any of": lambda items, words: any(
        item.strip().lower() == word.lower() for item in items for word in words
    ),
    "without": lambda items, words: not set(words) <= set(items),
    "not only": lambda items, words: any(item not in words for item in items),
    "not loopback": lambda items, _: any(_is_outside(item) for item in items),
    "not unix": lambda items, _: any(
        not re.match(r"(unix|fd)://|/", item) for item in items if item
    ),
    "http": lambda items, _: any(
        re.search(r"\b(http|tcp)://", item, re.IGNORECASE) for item in items
    ),
}
"""Rules of the column `weak`: items of a value, and words of the rule. Where a value is unclear, it
counts as weak."""


def _show(one: FoundWeakening) -> str:
    value = _text(one.value)
    shown = value if len(value) <= 40 else f"{value[:37]}..."
    return f"{one.row.setting}={shown}" if one.row.setting.startswith("--") else f"'{shown}'"
