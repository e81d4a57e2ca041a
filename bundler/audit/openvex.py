"""What does not apply, as an OpenVEX document (github.com/openvex/spec), which scanners read."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from bundler import __version__
from bundler.audit.built_in import BuiltIn
from bundler.audit.compare import Finding, compare
from bundler.audit.parts import read_bundle_parts

CONTEXT = "https://openvex.dev/ns/v0.2.0"
BASE = "https://openvex.dev/docs/bundler"


def make_bundle_vex(name: str, bundle: Mapping[str, bytes], mtime: int) -> bytes:
    """Make the document of one bundle, by the built-in table; `mtime` is epoch seconds."""
    result = compare([read_bundle_parts(name, bundle)], [BuiltIn()])
    return make_openvex(result.not_affected, datetime.fromtimestamp(mtime, UTC))


def make_openvex(findings: Iterable[Finding], now: datetime) -> bytes:
    """Make the document; the same findings and time give the same bytes."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    statements = list(_list_statements(findings))
    digest = hashlib.sha256(json.dumps([stamp, statements]).encode()).hexdigest()
    document = {
        "@context": CONTEXT,
        "@id": f"{BASE}-{digest[:32]}",
        "author": "bundler audit",
        "timestamp": stamp,
        "version": 1,
        "tooling": f"bundler {__version__}",
        "statements": statements,
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _list_statements(findings: Iterable[Finding]) -> Iterator[Mapping[str, Any]]:
    for one in findings:
        if not one.not_affected or not one.purls:
            continue
        aliases = {"aliases": list(one.aliases)} if one.aliases else {}
        yield {
            "vulnerability": {"name": one.id, **aliases},
            "products": [{"@id": purl, "identifiers": {"purl": purl}} for purl in one.purls],
            "status": "not_affected",
            "justification": one.not_affected.justification,
            "impact_statement": one.not_affected.reason,
        }
