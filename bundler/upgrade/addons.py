"""Compare the add-ons that control planes apply, by their files and lists of objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bundler.bundle.inspect import BundleReport
from bundler.bundle.inventory import ItemKind
from bundler.bundle.sbom import PROPERTIES, SBOM
from bundler.formats.safe_parse import read_json
from bundler.render.addons import DIRECTORY, OBJECT_LIST
from bundler.upgrade.change import BundleChange, ChangeKind

SECTION = "add-ons"
WORDS = {
    ChangeKind.ADDED: "is applied: {after}",
    ChangeKind.REMOVED: "is deleted: {before}",
    ChangeKind.CHANGED: "changes: {after}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addon:
    """What a bundle has of one add-on."""

    files: frozenset[tuple[str, str]]  # path and digest
    objects: tuple[str, ...]  # `KIND[.GROUP] NAMESPACE NAME`
    chart: str = ""  # `ingress-nginx 4.13.2`


def compare_addons(before: BundleReport, after: BundleReport) -> Iterator[BundleChange]:
    """Yield each add-on of a control plane that comes, goes, or changes."""
    ours, theirs = _read(before), _read(after)
    for name in sorted(ours.keys() | theirs.keys()):
        old, new = ours.get(name), theirs.get(name)
        if old == new:
            continue
        if old and new:
            yield BundleChange(
                section=SECTION, what=ChangeKind.CHANGED, name=name, after=_describe(old, new)
            )
        else:
            yield BundleChange(
                section=SECTION,
                what=ChangeKind.REMOVED if old else ChangeKind.ADDED,
                name=name,
                before=_count(len(old.objects)) if old else "",
                after=_count(len(new.objects)) if new else "",
            )


def describe_addon(change: BundleChange) -> str:
    """`add-on web changes: 1 object new, 2 deleted`."""
    words = WORDS[change.what].format(before=change.before, after=change.after)
    return f"add-on {change.name} {words}"


def _read(report: BundleReport) -> Mapping[str, _Addon]:
    files: dict[str, set[tuple[str, str]]] = {}
    for entry in report.parsed.list_contents():
        name, slash, _ = entry.path.removeprefix(f"{DIRECTORY}/").partition("/")
        if entry.path.startswith(f"{DIRECTORY}/") and slash:
            files.setdefault(name, set()).add((entry.path, entry.sha256))
    charts = dict(_list_charts(report))
    return {
        name: _Addon(
            files=frozenset(found),
            objects=_read_objects(report, name),
            chart=charts.get(name, ""),
        )
        for name, found in files.items()
    }


def _list_charts(report: BundleReport) -> Iterator[tuple[str, str]]:
    """Yield add-on and chart, as the SBOM has them; nothing if bundler did not write it."""
    try:
        components = read_json(report.texts[SBOM]).get("components", ())
        for each in components:
            for part in each.get("components", ()) if _kind_of(each) == ItemKind.ADDON else ():
                if _kind_of(part) == ItemKind.CHART:
                    yield str(each["name"]), f"{part['name']} {part['version']}"
    except (KeyError, ValueError, TypeError, AttributeError):
        return


def _kind_of(component: Mapping[str, Any]) -> str:
    properties = {p["name"]: str(p["value"]) for p in component.get("properties", ())}
    return properties.get(f"{PROPERTIES}kind", "")


def _read_objects(report: BundleReport, name: str) -> tuple[str, ...]:
    text = report.texts.get(f"{DIRECTORY}/{name}/{OBJECT_LIST}", b"").decode(errors="replace")
    rows = (line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    return tuple(rows)


def _describe(old: _Addon, new: _Addon) -> str:
    added = len(set(new.objects) - set(old.objects))
    deleted = len(set(old.objects) - set(new.objects))
    words = (
        _describe_charts(old.chart, new.chart),
        f"{_count(added)} new" if added else "",
        f"{deleted} deleted" if deleted else "",
    )
    return ", ".join(word for word in words if word) or "objects have other content"


def _describe_charts(old: str, new: str) -> str:
    """`chart web 1.2.3 → 1.3.0`; empty without a change."""
    if old == new:
        return ""
    is_same = old.rpartition(" ")[0] == new.rpartition(" ")[0]
    after = new.rpartition(" ")[2] if is_same else new
    return f"chart {old or 'none'} → {after or 'none'}"


def _count(number: int) -> str:
    return f"{number} object{'' if number == 1 else 's'}"
