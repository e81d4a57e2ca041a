"""Compare the SBOMs of two bundles: upstream files, programs, images, packages."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bundler.bundle.inspect import BundleReport
from bundler.bundle.sbom import PROPERTIES, SBOM
from bundler.errors import OutputError
from bundler.upgrade.change import BundleChange, ChangeKind

SECTIONS = {
    "artifact": "components",
    "program": "components",
    "scripts": "components",
    "image": "images",
    "package": "packages",
}
"""The section that reports a kind of component; others are parts of these, or of add-ons."""

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """The fields of an SBOM component that are compared."""

    kind: str
    name: str
    arch: str
    path: str
    version: str
    digest: str
    parent: Key | None  # the component that contains it
    parts: tuple[str, ...]  # names of the layers of an image

    @property
    def key(self) -> Key:
        """The fields that stay when the version changes."""
        return self.kind, self.path if self.kind == "program" else self.name, self.arch

    @property
    def label(self) -> str:
        """`etcd (amd64)`."""
        return f"{self.name} ({self.arch})" if self.arch else self.name


def compare_components(before: BundleReport, after: BundleReport) -> Iterator[BundleChange]:
    """Yield each component that differs.

    If only one bundle has an SBOM, yield nothing: the SBOM is listed as an added file. A program
    is reported only if the component that contains it is the same.
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
        if first.parent not in changed:
            yield from _list_changes(old, new)


def read_components(report: BundleReport) -> tuple[Component, ...]:
    """Read every component of a bundle's SBOM; raise OutputError if it is not bundler's."""
    try:
        document = json.loads(report.texts[SBOM])
        return tuple(_walk(document.get("components", ()), None))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(
            f"{report.facts.get('NODE', 'a bundle')}: {SBOM}: bundler did not write this SBOM"
        ) from error


def _walk(components: list[dict[str, Any]], parent: Key | None) -> Iterator[Component]:
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
            parent=parent,
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


def _list_changes(old: tuple[Component, ...], new: tuple[Component, ...]) -> Iterator[BundleChange]:
    """Report one component that changed; with several of one name, additions and removals."""
    section, name = SECTIONS[(old or new)[0].kind], (old or new)[0].label
    if len(old) == len(new) == 1:
        yield BundleChange(
            section=section,
            what=ChangeKind.CHANGED,
            name=name,
            before=_describe(old[0], new[0]),
            after=_describe(new[0], old[0]) + _count_layers(old[0], new[0]),
        )
        return
    left, right = _identify(old), _identify(new)
    for component in old:
        if (component.version, component.digest) not in right:
            before = component.version or _short(component.digest)
            yield BundleChange(section=section, what=ChangeKind.REMOVED, name=name, before=before)
    for component in new:
        if (component.version, component.digest) not in left:
            after = component.version or _short(component.digest)
            yield BundleChange(section=section, what=ChangeKind.ADDED, name=name, after=after)


def _describe(component: Component, other: Component) -> str:
    """Return the version, and the digest if both have the same version."""
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
