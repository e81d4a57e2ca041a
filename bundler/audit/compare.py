"""Compare parts with advisories."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bundler.audit.advisory import SEVERITIES, Advisory, Database, NotAffected
from bundler.audit.parts import Contents, Held, Part, merge

UNRATED = "unrated"
"""Shown for an advisory without a severity. It counts as the highest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A vulnerability of a part, from every database that has it."""

    part: Part
    holders: tuple[str, ...]  # bundles
    purls: tuple[str, ...]
    id: str  # of the CVE, if it has one
    aliases: tuple[str, ...]
    severity: str  # the highest that a database states; empty: none does
    summary: str
    fixes: tuple[str, ...]
    databases: tuple[str, ...]
    not_affected: NotAffected | None  # why it does not apply here

    @property
    def rank(self) -> int:
        """The place in SEVERITIES; without one, above all."""
        return SEVERITIES.index(self.severity) if self.severity else len(SEVERITIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found, and what could not be compared."""

    findings: tuple[Finding, ...]  # those that apply, the worst first
    not_affected: tuple[Finding, ...]
    compared: int  # parts
    unknown: tuple[str, ...]  # parts that could not be compared, each with the reason
    assumed: tuple[str, ...]  # files of other digests than the catalog's, as upstream's releases


def compare(contents: Sequence[Contents], databases: Iterable[Database]) -> Result:
    """Compare every part with every database."""
    parts = merge(contents)
    usable = {part: held for part, held in parts.items() if part.version and part.scheme}
    found: dict[Part, list[Advisory]] = {}
    unknown = [f"{part.label}: {_explain(part)}" for part in parts if part not in usable]
    for database in databases:
        for part, advisory in database.find(usable):
            affects = advisory.affects(part)
            if affects is None:
                unknown.append(f"{part.label}: {advisory.id} names versions that do not compare")
            elif affects:
                found.setdefault(part, []).append(advisory)
    findings = [
        _make_finding(part, usable[part], group, contents)
        for part, advisories in found.items()
        for group in _group(advisories)
    ]
    findings.sort(key=lambda one: (-one.rank, one.part.name, one.id, one.part.label))
    return Result(
        findings=tuple(one for one in findings if not one.not_affected),
        not_affected=tuple(one for one in findings if one.not_affected),
        compared=len(usable),
        unknown=tuple(dict.fromkeys(unknown)),
        assumed=tuple(dict.fromkeys(part.label for part in usable if part.own)),
    )


def _explain(part: Part) -> str:
    """Why a part cannot be compared."""
    return part.unread or (
        "its version is not known" if part.scheme else "no database has it by this name"
    )


def _group(advisories: Iterable[Advisory]) -> list[list[Advisory]]:
    """Advisories that share an id are about one vulnerability."""
    groups: list[list[Advisory]] = []
    for advisory in advisories:
        same = [g for g in groups if any(not one.ids.isdisjoint(advisory.ids) for one in g)]
        groups = [g for g in groups if g not in same]
        groups.append([*(one for g in same for one in g), advisory])
    return groups


def _make_finding(
    part: Part, held: Held, group: Sequence[Advisory], contents: Sequence[Contents]
) -> Finding:
    ids = sorted(set().union(*(one.ids for one in group)), key=_by_kind)
    rated = [one.severity for one in group if one.severity]
    reason = next((one.not_affected for one in group if one.not_affected), None)
    if part.image:  # its programs run with settings of their own
        reason = None
    settings = [one.settings for one in contents if one.name in held.holders]
    return Finding(
        part=part,
        holders=held.holders,
        purls=held.purls,
        id=ids[0],
        aliases=tuple(ids[1:]),
        severity=max(rated, key=SEVERITIES.index) if rated else "",
        summary=next((one.summary for one in group if one.summary), ""),
        fixes=tuple(dict.fromkeys(fix for one in group for fix in one.list_fixes(part))),
        databases=tuple(dict.fromkeys(one.database for one in group)),
        not_affected=reason if reason and not is_set(reason.unless, settings) else None,
    )


def is_set(unless: str, settings: Iterable[Mapping[str, str]]) -> bool:
    """Whether one of the bundles has the setting: PROGRAM, and a text of its configuration.

    A field of a configuration file counts unless its value is 0.
    """
    program, _, setting = unless.partition(" ")
    if not setting:
        return False
    pattern = re.compile(rf"(?<![\w-]){re.escape(setting)}(?![\w-])(?!: 0\b)")
    return any(pattern.search(texts.get(program, "")) for texts in settings)


def _by_kind(name: str) -> tuple[int, str]:
    """CVEs first, then GitHub's, then those of others."""
    kinds = ("CVE-", "GHSA-")
    return next((n for n, kind in enumerate(kinds) if name.startswith(kind)), len(kinds)), name
