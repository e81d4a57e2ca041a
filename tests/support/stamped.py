"""Another version of Kubernetes for the lab, which builds only one from source.

The programs report the other version and are otherwise the same: this tests what bundler does in an
upgrade, and no change of Kubernetes itself.
"""

import hashlib
import tarfile
from pathlib import Path

import yaml

from support.paths import LAB_CACHE

OLD = "1.20.2"
ARCHIVE = "dl.k8s.io/v{}/kubernetes-server-linux-amd64.tar.gz"


def stamp(target: Path, version: str, pins_file: Path = LAB_CACHE / "pins.yaml") -> Path:
    """Make a mirror with the lab's Kubernetes under another version, and pins for it."""
    assert len(version) == len(OLD)  # the version is replaced in place
    source = LAB_CACHE / "mirror" / ARCHIVE.format(OLD)
    archive = target / ARCHIVE.format(version)
    archive.parent.mkdir(parents=True)
    with tarfile.open(source) as old, tarfile.open(archive, "w:gz", compresslevel=1) as new:
        for member in old:
            content = old.extractfile(member)
            if not content:
                new.addfile(member)
                continue
            path = target / "program"
            stamped = content.read().replace(f"v{OLD}".encode(), f"v{version}".encode())
            path.write_bytes(stamped)
            with path.open("rb") as file:
                new.addfile(member, file)
    pins = yaml.safe_load(pins_file.read_text())
    pins["artifacts"]["kubernetes-server"] = {
        "url": f"https://{ARCHIVE.format(version)}",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    (target / "pins.yaml").write_text(yaml.safe_dump(pins))
    return target


def use(mirror: Path) -> tuple[str, ...]:
    """Return the arguments of `bundler build` for this mirror."""
    return "--mirror", str(mirror), "--pins", str(mirror / "pins.yaml")
