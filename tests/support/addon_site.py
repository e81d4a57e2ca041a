"""A control plane whose add-ons change from build to build, and what its controllers would do."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.join_cluster import Build, Builder, Client
from support.networks import take_network
from support.unit_users import enter, give_files, make_own_directory, make_places

MAPS = "/api/v1/namespaces/web/configmaps"
INVENTORY = "/api/v1/namespaces/kube-system/configmaps/bundler-addon-"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/bundler-addons"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gadgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget"},
        "versions": [
            {
                "name": "v1", "served": True, "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}  # fmt: skip
UNIT = "kube-addons"
JOBS = "/apis/batch/v1/namespaces/web/jobs"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def make_deployment(
    name: str, image: str = "nginx:1.27", command: list[str] | None = None
) -> dict[str, Any]:
    container = {"name": "web", "image": image, **({"command": command} if command else {})}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }  # fmt: skip


class Site:
    """A control plane, and builds of one cluster that differ in their add-ons."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.builder = Builder(directory, take_network(), programs, ("w1",))
        self.first = self.build()

    def build(self, **addons: Any) -> Build:
        """Name → the objects of an add-on or its chart, and keys of `addons`."""
        described = []
        for name, (objects, keys) in addons.items():
            if isinstance(objects, Path):
                described.append({"name": name, "chart": {"path": str(objects)}, **keys})
                continue
            path = self.builder.directory / f"{name}.yaml"
            path.write_text(yaml.safe_dump_all(objects))
            described.append({"name": name, "manifests": str(path), **keys})
        self.builder.more |= {"addons": described}
        return self.builder.build()


def start(build: Build, **environment: str) -> subprocess.Popen[str]:
    """Start kube-addons.service on the control plane of a build."""
    script = build.root("cp1") / "opt/k8s/libexec/site-addons.sh"
    command = ["sh", str(script), *environment.pop("words", "").split()]
    if environment.pop("user", ""):
        command = as_unit(build, command, environment)
    return subprocess.Popen(
        command, env={**build.environment("cp1"), **environment}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def as_unit(build: Build, command: list[str], environment: dict[str, str]) -> list[str]:
    """The command with the unit's user and its copies; adds its HOME to the environment."""
    root = build.root("cp1")
    make_places(root)
    home = make_own_directory(root / "run/kube-addons", UNIT)
    give_files(root, UNIT)
    environment["HOME"] = str(home)
    return enter(root, build.programs, UNIT, command)


def apply(build: Build, *, code: int = 0, once: bool = False, **environment: str) -> str:
    """Run it to its end, with --once on request and for a code other than 0; returns its journal.

    user=yes: as its unit does, without root.
    """
    words = "--once" if once or code else ""
    process = start(build, words=words, **environment)
    try:  # on a busy machine each of its tens of kubectl takes seconds
        said, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate()
        pytest.fail(f"it did not end in 300 s:\n{said}")
    assert process.returncode == code, said
    return said


def read_states(build: Build) -> dict[str, str]:
    text = (build.root("cp1") / "run/kube-addons/state").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines())


def exists(admin: Client, path: str) -> bool:
    return admin.send("GET", path).status == 200


def end_job(admin: Client, name: str, how: str = "Complete") -> str:
    """What the Job controller does; returns the Job's UID."""
    condition = {"type": how, "status": "True", "message": "backoff limit reached"}
    answer = admin.send(
        "PATCH",
        f"{JOBS}/{name}/status",
        {"status": {"conditions": [condition]}},
        "merge-patch+json",
    )
    assert answer.status == 200, answer
    uid: str = answer.body["metadata"]["uid"]
    return uid


def reset(site: Site, admin: Client) -> None:
    """No add-on, and none that any host has announced."""
    apply(site.first, PATIENCE="1")
    for place in site.builder.directory.glob("build*/*/rootfs/var/lib/kube-addons"):
        shutil.rmtree(place)
    for place in site.builder.directory.glob("build*/*/rootfs/run/kube-addons"):
        shutil.rmtree(place)
    for kind in (MAPS, "/apis/apps/v1/namespaces/web/deployments"):
        admin.send("DELETE", kind)
    admin.send(
        "PATCH", LEASE, {"metadata": {"annotations": None}, "spec": None}, "merge-patch+json"
    )
