"""A small cluster with stand-ins for all upstream files."""

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from bundler.bundle.layout import Media
from bundler.cache.store import Cache
from bundler.pipeline import build
from bundler.project import Inputs
from support.descriptions import write_archive, write_upstream

SMALL = """\
apiVersion: bundler/v1alpha1
name: small
kubernetes: {version: 1.36.2}
runtime: {engine: containerd}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}
  - {name: two, address: 192.0.2.2, roles: [worker]}
  - {name: three, address: 192.0.2.3, roles: [worker]}
images:
  - {ref: "registry.k8s.io/pause:3.10.2", file: pause.tar}
  - {ref: "docker.io/library/nginx:1.22", file: nginx.tar, use: verify}
"""


@dataclass(frozen=True)
class SmallSite:
    """The directory with cluster.yaml, images, upstream files and the state."""

    directory: Path

    @property
    def inputs(self) -> Inputs:
        return Inputs(
            description=self.directory / "cluster.yaml",
            cache=Cache(self.directory / "cache"),
            pins=self.directory / "pins.yaml",
            mirrors=(str(self.directory / "mirror"),),
        )

    @property
    def arguments(self) -> list[str]:
        """The options of the command line for these inputs."""
        return [
            "-c", f"{self.directory}/cluster.yaml", "--cache", f"{self.directory}/cache",
            "--pins", f"{self.directory}/pins.yaml", "--mirror", f"{self.directory}/mirror",
        ]  # fmt: skip

    def build(self, name: str = "dist", media: Media = Media(), sign: Path | None = None) -> Path:  # noqa: B008 - frozen
        """A directory of bundles."""
        build(self.inputs, self.directory / name, media=media, signing_key=sign)
        return self.directory / name

    def change(self, component: str) -> None:
        """Replace the upstream files by others with the same names and changed programs."""
        path = next((self.directory / "mirror/upstream.example/amd64").glob(component))
        changed = io.BytesIO()
        with tarfile.open(path) as old, tarfile.open(fileobj=changed, mode="w:gz") as new:
            for member in old:
                content = old.extractfile(member).read() + b"changed"  # type: ignore[union-attr]
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
        path.write_bytes(changed.getvalue())
        pins = json.loads((self.directory / "pins.yaml").read_bytes())
        pins["artifacts"][f"{component}/amd64"]["sha256"] = hashlib.sha256(
            changed.getvalue()
        ).hexdigest()
        (self.directory / "pins.yaml").write_text(json.dumps(pins))


def make_site(directory: Path) -> SmallSite:
    """A site that is ready to build."""
    directory.mkdir(parents=True, exist_ok=True)
    write_archive(directory / "pause.tar", "registry.k8s.io/pause:3.10.2")
    write_archive(directory / "nginx.tar", "docker.io/library/nginx:1.22")
    (directory / "cluster.yaml").write_text(SMALL)
    write_upstream(directory, directory / "cluster.yaml")
    return SmallSite(directory)


def unpack(tarball: Path, directory: Path) -> Path:
    """Unpack a bundle with the system's tar; return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xzf", tarball, "-C", directory], check=True)
    return directory / tarball.name.removesuffix(".tar.gz")


def read_manifest(tarball: Path) -> list[str]:
    """The lines of the manifest of a bundle."""
    name = tarball.name.removesuffix(".tar.gz")
    done = subprocess.run(
        ["tar", "-xzOf", tarball, f"{name}/MANIFEST"], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()
