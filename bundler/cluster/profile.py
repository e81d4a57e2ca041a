"""`profile`: what it sets in other keys of cluster.yaml, and what contradicts it.

catalog/profile-keys.tsv has a row for each key:

key       of cluster.yaml, dotted
set       the value where the file does not have the key; empty: the profile sets none
unless    `key=value` of the file with which the profile does not set it
rule      what a value must meet, with `value`: as in cis.tsv
since     the first Kubernetes minor for which the row holds; empty: all
until     the first minor for which it no longer does
checks    the names of the checks in cis.tsv that need it
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from bundler.catalog import read_table
from bundler.cluster.accepted import is_within
from bundler.cluster.cis import (
    OLDEST,
    STRONG_SUITES,
    CisCheck,
    choose_benchmark,
    describe_rule,
    list_all_checks,
    list_checks,
    meets,
)
from bundler.cluster.components import key_of, minor_of
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_settings import Kubernetes
from bundler.cluster.sourced import Place, Rules, Value, make_value, merge
from bundler.formats.bounded_yaml import read_document

KEY = "profile"
NOT_OURS = frozenset({"no", "site"})
"""Values of `met_by` for which a setting of the site cannot be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileKey:
    """One row of the table."""

    key: str
    set: str
    unless: str
    rule: str
    value: str
    since: str
    until: str
    checks: str


def add_profile(root: Value, rules: Rules) -> Value:
    """The description merged over what its profile sets; each such value is at that key's place."""
    chosen = root.get(KEY)
    if not chosen or chosen.content not in ("cis", "stig"):
        return root
    minor = _find_minor(root)
    under = Value({}, root.place)
    for row in _list_keys(minor) if minor else ():
        if row.set and not _is_excepted(root, row.unless):
            value = _nest(row.key, read_document(row.set).data, chosen.place)
            under = merge(under, value, rules)
    return merge(under, root, rules)


def check_profile(cluster: Cluster) -> Iterator[Problem]:
    """What the profile does not allow, as all hosts or one of them have it."""
    if not cluster.profile:
        return
    minor = minor_of(cluster.kubernetes.version)
    if not (benchmark := choose_benchmark(minor)):
        text = f"the benchmarks begin with Kubernetes {OLDEST}: use it or later, or no profile"
        yield Problem(path=(KEY,), text=text)
        return
    yield from _check_keys(cluster, minor, benchmark)
    for check in list_checks(minor, cluster.profile):
        if check.kind in {"argument", "setting"} and check.met_by not in NOT_OURS:
            yield from _check_extra(cluster, check, benchmark)


def _check_keys(cluster: Cluster, minor: str, benchmark: str) -> Iterator[Problem]:
    names = {check.name: check for check in list_all_checks()}
    for row in _list_keys(minor):
        found = _text_of(_get(cluster, row.key))
        if row.rule and not meets(row.rule, row.value, found):
            checks = [names[name] for name in row.checks.split()]
            yield Problem(
                path=tuple(row.key.split(".")), text=_explain(checks, row, benchmark, found)
            )


def _check_extra(cluster: Cluster, check: CisCheck, benchmark: str) -> Iterator[Problem]:
    extra = cluster.extra.get(check.subject)
    if not extra:
        return
    for word in check.argument.split():
        flag = word.removeprefix("--")
        if flag != word:
            where: tuple[str, ...] = ("flags", flag)
            is_given, value = flag in extra.flags, extra.flags.get(flag)
        else:
            where = ("config", *word.split("."))
            is_given, value = _find_field(extra.config, where[1:])
        found = _text_of(value)
        if is_given and not meets(check.rule, check.value, found):
            text = _explain([check], check, benchmark, found)
            yield Problem(path=("extra", check.subject, *where), text=text)


def _explain(
    checks: list[CisCheck], row: CisCheck | ProfileKey, benchmark: str, found: str | None
) -> str:
    labels = "; ".join(check.label(benchmark) for check in checks)
    wanted = describe_rule(row.rule, row.value)
    shown = f"'{found}'" if isinstance(found, str) else "not set"
    return (
        f"{shown} contradicts the profile ({labels}: {checks[0].title}): it must be {wanted}."
        " Change it, or remove the profile"
    )


def _list_keys(minor: str) -> Iterator[ProfileKey]:
    yield from (row for row in _read_keys() if is_within(row.since, row.until, minor))


@cache
def _read_keys() -> tuple[ProfileKey, ...]:
    rows = []
    for row in read_table("profile-keys.tsv"):
        filled = {
            name: text.replace("{suites}", ",".join(STRONG_SUITES)) for name, text in row.items()
        }
        rows.append(ProfileKey(**filled))
    return tuple(rows)


def _find_minor(root: Value) -> str | None:
    """The minor of a description that is not validated yet; None if its version is none."""
    given = (inner := root.get("kubernetes")) and inner.get("version")
    version = str(given.content if given else Kubernetes().version)
    version = version.removeprefix("v")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){2}", version):
        return None
    minor = minor_of(version)
    return minor if key_of(minor) >= key_of(OLDEST) else None


def _is_excepted(root: Value, unless: str) -> bool:
    key, _, wanted = unless.partition("=")
    found: Value | None = root if key else None
    for name in key.split("."):
        found = found.get(name) if found else None
    return found is not None and found.content == wanted


def _nest(key: str, data: Any, place: Place) -> Value:
    """`a.b` and a value → {a: {b: value}}, all at one place."""
    for name in reversed(key.split(".")):
        data = {name: data}
    return _put(make_value(data, place.file, {}, {}), place)


def _put(value: Value, place: Place) -> Value:
    content = value.content
    if isinstance(content, dict):
        content = {key: _put(inner, place) for key, inner in content.items()}
    elif isinstance(content, list):
        content = [_put(inner, place) for inner in content]
    return Value(content, place)


def _get(cluster: Cluster, key: str) -> object:
    value: object = cluster
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def _find_field(config: Mapping[str, Any], path: tuple[str, ...]) -> tuple[bool, Any]:
    value: Any = config
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value


def _text_of(value: object) -> str | None:
    """A value as a program gets it; None if there is none."""
    if value in (None, (), []):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)
