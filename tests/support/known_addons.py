"""Known add-ons as clusters whose charts and manifests are folders on this machine."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.cluster.components import MINORS
from bundler.cluster.known_addons import AddonRelease, KnownAddon, list_known, make_keys
from support.paths import EXAMPLES

VARIABLE = "BUNDLER_KNOWN_ADDONS"
"""Names a folder that has NAME-VERSION (a chart's folder, or manifests) or NAME-VERSION.tgz of each add-on."""
HEAD = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {{version: {minor}.0}}
nodes:
  - {{name: m1, address: 192.0.2.10, roles: [etcd, control-plane]}}
  - {{name: w1, address: 192.0.2.20, roles: [worker]}}
"""
OWN = {"applications": EXAMPLES / "addons" / "argo-cd" / "addons" / "applications"}
"""Add-ons of the table whose files are the project's."""

RELEASES = [(known, release) for known in list_known() for release in known.releases]
IDS = [f"{known.name}-{release.version}" for known, release in RELEASES]


def list_ends(release: AddonRelease) -> list[str]:
    """The oldest and the newest minor that bundler knows and the add-on's project supports."""
    return list(dict.fromkeys((release.list_minors()[0], release.list_minors()[-1])))


def find_sources(known: KnownAddon, release: AddonRelease) -> dict[str, Path]:
    """Add-on → its chart or manifests; the test is skipped if one is not there."""
    folder = Path(os.environ.get(VARIABLE, "/nonexistent"))
    found = {}
    for addon in known.addons:
        name = f"{addon['name']}-{release.version}"
        places = (OWN.get(addon["name"]), folder / name, folder / f"{name}.tgz")
        path = next((place for place in places if place and place.exists()), None)
        if not path:
            pytest.skip(
                "known add-ons cannot be rendered: BUNDLER_KNOWN_ADDONS does not name a folder with NAME-VERSION of each"
            )
        found[addon["name"]] = path
    return found


def make_text(
    known: KnownAddon, release: AddonRelease, minor: str, sources: dict[str, Path] | None = None
) -> str:
    """A cluster.yaml with a release; with `sources` its files come from there."""
    keys: dict[str, Any] = make_keys(known, release)
    for addon in keys["addons"] if sources else ():
        path = str(sources[addon["name"]]) if sources else ""
        if "chart" in addon:
            addon["chart"] = {"path": path}
        else:
            addon["manifests"] = path
    assert minor in MINORS
    return HEAD.format(minor=minor) + yaml.safe_dump(keys, sort_keys=False)
