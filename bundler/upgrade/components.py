"""Which components two bundles' SBOMs tell apart: upstream files, programs, images, packages."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bundler.bundle.inspect import BundleReport
from bundler.bundle.sbom import PROPERTIES, SBOM
from bundler.errors import OutputError
from bundler.upgrade.change import BundleChange, What

SECTIONS = {
    "artifact": "components",
    "program": "components",
    "scripts": "components",
    "image": "images",
    "package": "packages",
}
"""Where a kind of component is told of; kinds that are not here are parts of others."""

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A component of an SBOM, as far as it is compared."""

    kind: str
    name: str
    arch: str
    path: str
    version: str
    digest: str
    whole: Key | None  # what it was taken out of
    parts: tuple[str, ...]  # names of the layers of an image

    @property
    def key(self) -> Key:
        """What stays when the version changes."""
        return self.kind, self.path if self.kind == "program" else self.name, self.arch

    @property
    def label(self) -> str:
        """`etcd (amd64)`."""
        return f"{self.name} ({self.arch})" if self.arch else self.name


def compare_components(before: BundleReport, after: BundleReport) -> Iterator[BundleChange]:
    """Each component that is not the same, in words.

    Nothing where only one bundle has an SBOM: that this file was added says so. A program is told
    of by itself only where what it was taken out of is the same.
    """
    if SBOM not in before.texts or SBOM not in after.texts:
        return
    ours, theirs = (_by_key(read_components(report)) for report in (before, after))
    changed: set[Key] = set()
    for key in dict.fromkeys((*ours, *theirs)):
        old, new = ours.get(key, ()), theirs.get(key, ())
        if _identify(old) == _identify(new):
            continue
        changed.add(key)
        first = (old or new)[0]
        if first.whole not in changed:
            yield from _tell(old, new)


def read_components(report: BundleReport) -> tuple[Component, ...]:
    """Every component of a bundle's SBOM, parts after their wholes; OutputError where it is odd."""
    try:
        document = json.loads(report.texts[SBOM])
        return tuple(_walk(document.get("components", ()), None))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(
            f"{report.facts.get('NODE', 'a bundle')}: {SBOM} is no SBOM of bundler's"
        ) from error


def _walk(components: list[dict[str, Any]], whole: Key | None) -> Iterator[Component]:
    for each in components:
        properties = {p["name"]: str(p["value"]) for p in each.get("properties", ())}
        kind = properties.get(f"{PROPERTIES}kind", "")
        parts = each.get("components", [])
        hashes = [
            f"{h['alg'].lower().replace('-', '')}:{h['content']}" for h in each.get("hashes", ())
        ]
        component = Component(
            kind=kind,
            name=str(each["name"]),
            arch=properties.get(f"{PROPERTIES}arch", ""),
            path=properties.get(f"{PROPERTIES}path", ""),
            version=str(each.get("version", "")),
            digest=" ".join(hashes),
            whole=whole,
            parts=tuple(str(part["name"]) for part in parts),
        )
        if kind in SECTIONS:
            yield component
            yield from _walk(parts, component.key)


def _by_key(components: tuple[Component, ...]) -> Mapping[Key, tuple[Component, ...]]:
    found: dict[Key, tuple[Component, ...]] = {}
    for component in components:
        found[component.key] = (*found.get(component.key, ()), component)
    return found


def _identify(components: tuple[Component, ...]) -> Counter[tuple[str, str]]:
    return Counter((component.version, component.digest) for component in components)


def _tell(old: tuple[Component, ...], new: tuple[Component, ...]) -> Iterator[BundleChange]:
    """One thing that became another is a change; where there are several, each comes or goes."""
    section, name = SECTIONS[(old or new)[0].kind], (old or new)[0].label
    if len(old) == len(new) == 1:
        yield BundleChange(
            section=section,
            what=What.CHANGED,
            name=name,
            before=_describe(old[0], new[0]),
            after=_describe(new[0], old[0]) + _count_layers(old[0], new[0]),
        )
        return
    left, right = _identify(old), _identify(new)
    for component in old:
        if (component.version, component.digest) not in right:
            before = component.version or _short(component.digest)
            yield BundleChange(section=section, what=What.REMOVED, name=name, before=before)
    for component in new:
        if (component.version, component.digest) not in left:
            after = component.version or _short(component.digest)
            yield BundleChange(section=section, what=What.ADDED, name=name, after=after)


def _describe(component: Component, other: Component) -> str:
    """The version, or what tells it from another of the same version."""
    if component.version != other.version:
        return component.version or "unknown"
    return f"{component.version} {_short(component.digest)}".strip()


def _short(digest: str) -> str:
    algorithm, _, text = digest.partition(":")
    return f"{algorithm}:{text[:12]}…" if text else ""


def _count_layers(before: Component, after: Component) -> str:
    if not after.parts or after.kind != "image":
        return ""
    kept = len(set(before.parts) & set(after.parts))
    return f" ({kept} of {len(after.parts)} layers as before)"
