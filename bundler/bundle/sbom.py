"""The bundle's items as a software bill of materials: CycloneDX, JSON (cyclonedx.org).

The same items give the same bytes: the serial number is derived from the content, and the time is
that of the tarball's members.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from bundler import __version__
from bundler.bundle.inventory import Item, ItemKind

SBOM = "sbom.cdx.json"
PROPERTIES = "bundler:"
"""Prefix of the names of properties that CycloneDX has no field for."""
TOOL = "bundler"
TOOL_LICENCE = "Apache-2.0"

TYPES = {
    ItemKind.ARTIFACT: ComponentType.APPLICATION,
    ItemKind.PROGRAM: ComponentType.APPLICATION,
    ItemKind.IMAGE: ComponentType.CONTAINER,
    ItemKind.LAYER: ComponentType.FILE,
    ItemKind.IMAGE_PACKAGE: ComponentType.LIBRARY,
    ItemKind.PACKAGE: ComponentType.LIBRARY,
    ItemKind.FILE: ComponentType.FILE,
    ItemKind.ADDON: ComponentType.APPLICATION,
    ItemKind.MANIFEST: ComponentType.FILE,
    ItemKind.CHART: ComponentType.FILE,
}
HASHES = {"sha256": HashAlgorithm.SHA_256, "sha512": HashAlgorithm.SHA_512}
_UNNUMBERED = UUID(int=0)


def make_sbom(name: str, facts: Mapping[str, str], items: Sequence[Item], mtime: int) -> bytes:
    """Make the SBOM of the bundle `name`; `facts` become properties, `mtime` is epoch seconds."""
    bundle = Component(
        name=name,
        type=ComponentType.APPLICATION,
        bom_ref="bundle",
        properties=_make_properties({"kind": "bundle", **facts}),
    )
    bom = Bom(
        serial_number=_UNNUMBERED,
        metadata=BomMetaData(
            component=bundle,
            timestamp=datetime.fromtimestamp(mtime, UTC),
            tools=ToolRepository(components=[_make_tool("tool")]),
        ),
        components=[_make_tool("scripts"), *(_make_component(item, "") for item in items)],
    )
    bom.register_dependency(bundle, bom.components)
    content = JsonV1Dot6(bom).output_as_string(indent=2)
    serial = uuid5(NAMESPACE_URL, f"sha256:{hashlib.sha256(content.encode()).hexdigest()}")
    return (content.replace(_UNNUMBERED.urn, serial.urn, 1) + "\n").encode()


def _make_tool(reference: str) -> Component:
    """Describe bundler: the tool that built the bundle, and the author of its scripts."""
    return Component(
        name=TOOL,
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref=reference,
        licenses=_make_licences(TOOL_LICENCE),
        properties=_make_properties({"kind": reference}),
    )


def _make_component(item: Item, parent: str) -> Component:
    """Make a component with its parts below it; `parent` is the reference that contains it."""
    algorithm, _, digest = item.digest.partition(":")
    reference = "/".join(part for part in (parent, item.kind, item.path or item.name) if part)
    return Component(
        name=item.name,
        version=item.version or None,
        type=TYPES[item.kind],
        bom_ref=reference,
        hashes=[HashType(alg=HASHES[algorithm], content=digest)] if digest else [],
        licenses=_make_licences(item.licence),
        purl=PackageURL.from_string(item.purl) if item.purl else None,
        external_references=_make_references(item.url),
        pedigree=_make_pedigree(item.made_from, reference),
        properties=_make_properties(
            {
                "kind": item.kind,
                "arch": item.arch,
                "path": item.path,
                "digest-source": item.evidence,
                "packages-not-read": item.unread,
            }
        ),
        components=[_make_component(part, reference) for part in item.parts],
    )


def _make_licences(licence: str) -> list[DisjunctiveLicense]:
    declared = LicenseAcknowledgement.DECLARED
    return [DisjunctiveLicense(id=licence, acknowledgement=declared)] if licence else []


def _make_pedigree(purls: Sequence[str], parent: str) -> Pedigree | None:
    """Name the packages of a distribution that a file was made from."""
    ancestors = [
        Component(
            name=purl.name,
            version=purl.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{parent}/made-from/{purl.name}",
            purl=purl,
        )
        for purl in map(PackageURL.from_string, purls)
    ]
    return Pedigree(ancestors=ancestors) if ancestors else None


def _make_references(url: str) -> list[ExternalReference]:
    kind = ExternalReferenceType.DISTRIBUTION
    return [ExternalReference(type=kind, url=XsUri(url))] if url else []


def _make_properties(values: Mapping[str, str]) -> list[Property]:
    return [
        Property(name=f"{PROPERTIES}{name}", value=str(value))
        for name, value in values.items()
        if value
    ]
