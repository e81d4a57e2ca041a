"""JSON for other programs: one object, whose `format` names its shape and the shape's version.

docs/reference/json.md describes each shape. A new field keeps the version; a field that is removed
or means something else raises it.
"""

import json
from collections.abc import Mapping, Sequence

from bundler import log

VERSIONS = {
    "addon-bundle": 1,
    "addon-list": 1,
    "addon-show": 1,
    "audit": 1,
    "build": 1,
    "cache-list": 1,
    "certs-check": 1,
    "certs-import": 1,
    "certs-list": 1,
    "certs-renew": 1,
    "certs-request": 1,
    "check": 1,
    "diff": 1,
    "examples": 1,
    "fetch": 1,
    "flags": 1,
    "images": 1,
    "inspect": 1,
    "inspect-payload": 1,
    "keys": 1,
    "lock": 1,
    "plan": 1,
    "rotation-stage": 1,
    "rotation-step": 1,
    "show": 1,
    "tokens": 1,
    "verify": 1,
    "versions": 1,
}
"""Each shape and its version."""

Value = None | bool | int | str | Sequence["Value"] | Mapping[str, "Value"]


def print_json(shape: str, **fields: Value) -> None:
    """Print one object of a shape on stdout."""
    content = {"format": f"{shape}/{VERSIONS[shape]}", **fields}
    log.result(json.dumps(content, indent=2))
