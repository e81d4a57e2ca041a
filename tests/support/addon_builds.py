"""A small cluster whose add-ons change from build to build, with images from files."""

import json
from dataclasses import dataclass
from pathlib import Path

from bundler.bundle.layout import Media
from bundler.project import Inputs
from support.descriptions import write_archive
from support.small_builds import SMALL, SmallSite, make_site

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - {{name: {name}, image: "{image}"}}
"""


@dataclass(frozen=True)
class AddonSite:
    """The directory with cluster.yaml, images, upstream files and the state."""

    small: SmallSite

    @property
    def directory(self) -> Path:
        return self.small.directory

    @property
    def inputs(self) -> Inputs:
        return self.small.inputs

    def build(self, name: str, media: Media = Media(), sign: Path | None = None) -> Path:  # noqa: B008 - frozen
        return self.small.build(name, media, sign)

    def write_image(self, name: str, change: str = "") -> Path:
        """The archive of an image, `team/app:1.0`; that of nginx is the cluster's own."""
        file = "nginx.tar" if "nginx" in name else f"{name.replace('/', '_').replace(':', '_')}.tar"
        write_archive(self.directory / file, f"docker.io/{name}", change=change or name)
        return self.directory / file

    def set_addons(self, *, timeout: str = "5m", listed: str = "", **addons: str) -> None:
        """Add-on → the image of its workload; `listed` is an image that no manifest names."""
        described, images = [], {}
        for name, image in addons.items():
            (self.directory / f"{name}.yaml").write_text(WEB.format(name=name, image=image))
            described.append(
                {"name": name, "manifests": f"{name}.yaml", "wait": {"timeout": timeout}}
            )
            images[image] = f"docker.io/{image}"
        more = [
            {"ref": ref, "file": self.write_image(name).name}
            for name, ref in {
                **images,
                **({listed: f"docker.io/{listed}"} if listed else {}),
            }.items()
            if "nginx" not in name
        ]
        rows = "".join(f"  - {json.dumps(row)}\n" for row in more)
        (self.directory / "cluster.yaml").write_text(
            f"{SMALL}{rows}addons: {json.dumps(described)}\n"
        )

    def append(self, text: str) -> None:
        """Add a key to cluster.yaml."""
        path = self.directory / "cluster.yaml"
        path.write_text(path.read_text() + text)


def make_addon_site(directory: Path) -> AddonSite:
    """A site without add-ons that is ready to build."""
    return AddonSite(make_site(directory))
