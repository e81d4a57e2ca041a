"""Disks with a cluster on them, kept between runs: emulated, an installation takes half an hour.

A disk is kept with the digest of what it was made of: the bundle, the image, the disk below it, and the steps.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from support.lab import FIGURES
from support.machine_clusters import (
    ALL_ROLES,
    HARDENED,
    Site,
    harden,
    list_swaps,
    make_bundle,
)
from support.machines import MACHINES, Image, Machine, ensure_image, new_machine

DISKS = MACHINES / "disks"


@dataclass(frozen=True)
class Installed:
    """A disk with a cluster on it, and what was seen on the way."""

    name: str
    image: Image
    bundle: str  # its directory on the machine
    digest: str  # of what the disk was made of
    made: datetime
    seen: dict[str, str]

    @property
    def disk(self) -> Path:
        return DISKS / f"{self.name}.qcow2"

    def new_site(
        self, *, ports: dict[int, int] | None = None, clock: str = "", words: str = ""
    ) -> Site:
        """A machine with a copy of the disk, which is on."""
        machine = new_machine(self.image, base=self.disk, ports=ports)
        machine.start(clock=clock, words=words)
        return Site(machine, self.bundle)


Steps = Callable[[Machine, Path], tuple[str, dict[str, str]]]
"""Machine (off) and tarball → the bundle's directory there and what was seen; the machine is on."""


def keep_disk(
    name: str, image: Image, bundle: Path, steps: Steps, *, base: Installed | None = None
) -> Installed:
    """The disk of this name, made by `steps` unless the one that is kept was made of the same."""
    digest = _digest_inputs(image, bundle, steps, base)
    record = DISKS / f"{name}.json"
    if record.exists():
        kept = json.loads(record.read_text())
        if kept["digest"] == digest:
            made = datetime.fromisoformat(kept["made"])
            FIGURES.extend(f"{figure} (kept, of {made:%Y-%m-%d})" for figure in kept["figures"])
            return Installed(name, image, kept["bundle"], digest, made, kept["seen"])
        record.unlink()
    known = len(FIGURES)
    machine = new_machine(image, base=base.disk if base else None)
    directory, seen = steps(machine, bundle)
    installed = Installed(name, image, directory, digest, datetime.now(UTC), seen)
    machine.save_disk(installed.disk)
    kept = {
        "made": installed.made.isoformat(), "digest": digest, "bundle": directory,
        "seen": seen, "figures": FIGURES[known:],
    }  # fmt: skip
    record.write_text(json.dumps(kept, indent=2))
    return installed


def _digest_inputs(image: Image, bundle: Path, steps: Steps, base: Installed | None) -> str:
    below = base.digest if base else (image.directory / "recipe").read_text()
    parts = (
        bundle.read_bytes(),
        below.encode(),
        inspect.getsource(steps).encode(),
        HARDENED.encode(),
    )
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def install_on_a_hardened_host(project: Path) -> Installed:
    """Every role on Debian 12, as install.sh advises; verify.sh found it green."""
    image = ensure_image("debian-12")
    return keep_disk("debian-12", image, make_bundle(project, image, ALL_ROLES), _install_hardened)


def _install_hardened(machine: Machine, bundle: Path) -> tuple[str, dict[str, str]]:
    FIGURES.append(f"{machine.image.name}: first boot: {machine.start():.0f} s")
    harden(machine)
    site = Site(machine, machine.unpack(bundle))
    swaps = list_swaps(machine)
    refused = machine.run(f"{site.bundle}/install.sh", check=False)
    assert refused.returncode == 3, refused.stdout
    machine.run("sed -i '/ip_forward/d; /panic_on_oom/d' /etc/sysctl.conf")
    site.install()
    site.verify("after the installation")
    return site.bundle, {"swaps": "\n".join(swaps), "refusal": refused.stdout}


def install_simply(machine: Machine, bundle: Path) -> tuple[str, dict[str, str]]:
    """Install on a new host; verify.sh finds it green."""
    FIGURES.append(f"{machine.image.name}: first boot: {machine.start():.0f} s")
    site = Site(machine, machine.unpack(bundle))
    site.install()
    site.verify("after the installation")
    return site.bundle, {}


WEB = "create deployment web --image=nginx:1.22"
NODE_PORT = "create service nodeport web --tcp=80:80 --node-port=30080"


def install_with_a_web_server(project: Path) -> Installed:
    """Every role on Debian 12 with a site's packages, all of them off, and a web server on it."""
    image = ensure_image("debian-12-site")
    bundle = make_bundle(project, image, ALL_ROLES)
    return keep_disk("debian-12-site", image, bundle, _install_with_a_web_server)


def _install_with_a_web_server(machine: Machine, bundle: Path) -> tuple[str, dict[str, str]]:
    directory, seen = install_simply(machine, bundle)
    site = Site(machine, directory)
    site.kubectl(WEB)
    site.kubectl(NODE_PORT)
    return directory, seen
