"""Runtime handlers: what each runtime's configuration and the RuntimeClasses say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.cluster.handlers import list_classes
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import make_config
from bundler.errors import ConfigError

NVIDIA = {"program": "/usr/bin/nvidia-container-runtime"}
KATA = {
    "program": "/opt/kata/bin/containerd-shim-kata-v2",
    "options": {"ConfigPath": "/opt/kata/c.toml"},
}
GVISOR = {
    "program": "/usr/local/bin/containerd-shim-runsc-v1",
    "options": {"ConfigPath": "/etc/runsc.toml"},
}
PLAIN_GVISOR = {"program": "/usr/local/bin/runsc", "arguments": ["--platform=systrap"]}


def describe(
    version: str, runtime: dict[str, Any], worker: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "apiVersion": "bundler/v1alpha1",
        "name": "site",
        "kubernetes": {"version": version},
        "runtime": runtime,
        "dns": {"provider": "none"},
        "images": [{"ref": "web.example/web:1", "use": "verify"}],
        "nodes": [
            {"name": "m1", "address": "192.0.2.1", "roles": ["etcd", "control-plane"]},
            {"name": "w1", "address": "192.0.2.11", "roles": ["worker"], **(worker or {})},
            {"name": "w2", "address": "192.0.2.12", "roles": ["worker"]},
        ],
    }  # fmt: skip


def load(directory: Path, description: dict[str, Any]) -> Cluster:
    path = directory / "cluster.yaml"
    path.write_text(yaml.safe_dump(description))
    return load_cluster(path).cluster


def config_of(cluster: Cluster, name: str) -> dict[str, Any]:
    plan = make_plan(cluster)
    node = next(node for node in plan.nodes if node.name == name)
    own = plan.on_host(node).cluster
    return make_config(own, own.runtime.engine, lambda _: "null")


@pytest.mark.parametrize(
    ("version", "containerd", "plugin", "systemd"),
    [
        ("1.20.2", "1.4.13", "io.containerd.grpc.v1.cri", False),
        ("1.29.1", "1.7.20", "io.containerd.grpc.v1.cri", False),
        ("1.36.2", "2.3.6", "io.containerd.cri.v1.runtime", True),
    ],
)
def test_containerd_has_the_handlers_in_the_plugin_of_its_version(
    tmp_path: Path, version: str, containerd: str, plugin: str, systemd: bool
) -> None:
    handlers = {"nvidia": NVIDIA, "kata": KATA, "gvisor": GVISOR}
    runtime = {"engine": "containerd", "version": containerd, "handlers": handlers}
    found = config_of(load(tmp_path, describe(version, runtime)), "w1")["plugins"][plugin][
        "containerd"
    ]
    assert found["default_runtime_name"] == "runc"
    runc = found["runtimes"].pop("runc")
    assert runc["options"]["BinaryName"] == "/opt/k8s/bin/runc"
    assert found["runtimes"] == {
        "nvidia": {
            "runtime_type": "io.containerd.runc.v2",
            "options": {"BinaryName": NVIDIA["program"], "SystemdCgroup": systemd},
        },
        "kata": {
            "runtime_type": "io.containerd.kata.v2",
            "options": {"ConfigPath": "/opt/kata/c.toml"},
        },
        "gvisor": {
            "runtime_type": "io.containerd.runsc.v1",
            "options": {
                "TypeUrl": "io.containerd.runsc.v1.options",
                "ConfigPath": "/etc/runsc.toml",
            },
        },
    }


def test_docker_has_programs_with_arguments_and_shims(tmp_path: Path) -> None:
    handlers = {"nvidia": NVIDIA, "gvisor": PLAIN_GVISOR, "kata": {"program": KATA["program"]}}
    runtime = {
        "engine": "docker", "version": "28.0.1", "cri_dockerd": "0.4.0", "handlers": handlers,
        "default_handler": "nvidia",
    }  # fmt: skip
    found = config_of(load(tmp_path, describe("1.33.1", runtime)), "w1")
    assert found["default-runtime"] == "nvidia"
    assert found["runtimes"] == {
        "nvidia": {"path": NVIDIA["program"]},
        "gvisor": {"path": "/usr/local/bin/runsc", "runtimeArgs": ["--platform=systrap"]},
        "kata": {"runtimeType": "io.containerd.kata.v2"},
    }


def test_a_handler_of_one_host_is_in_its_files_only_and_has_a_class(tmp_path: Path) -> None:
    own = {"handlers": {"nvidia": {**NVIDIA, "node_selector": {"gpu": "yes"}}}}
    description = describe("1.36.2", {"engine": "containerd"}, {"runtime": own})
    cluster = load(tmp_path, description)
    names = {
        name: set(
            config_of(cluster, name)["plugins"]["io.containerd.cri.v1.runtime"]["containerd"][
                "runtimes"
            ]
        )
        for name in ("w1", "w2")
    }
    assert names == {"w1": {"runc", "nvidia"}, "w2": {"runc"}}
    assert list_classes(cluster) == {"nvidia": {"gpu": "yes"}}


DOCKER = {"engine": "docker", "version": "20.10.24"}
REFUSED = [
    ({"engine": "containerd", "default_handler": "nvidia"}, r"runtime.default_handler: nvidia is not in runtime.handlers; handlers of this host: runc"),
    ({"engine": "containerd", "handlers": {"runc": NVIDIA}}, r"runtime.handlers.runc: runc is bundler's own program: take another name"),
    ({"engine": "containerd", "handlers": {"Big": NVIDIA}}, r"runtime.handlers.Big: must be a DNS label"),
    ({"engine": "containerd", "handlers": {"a": {"program": "nvidia"}}}, r"handlers.a.program: must be an absolute path"),
    ({"engine": "containerd", "handlers": {"a": {**NVIDIA, "arguments": ["-x"]}}}, r"handlers.a.arguments: unknown key"),
    ({"engine": "containerd", "handlers": {"a": {}}}, r"handlers.a.program: is missing"),
    ({**DOCKER, "handlers": {"nvidia": NVIDIA}}, r"handlers.nvidia: pods cannot choose it: RuntimeClasses of Docker need cri-dockerd 0.4.0"),
    ({**DOCKER, "handlers": {"k": {"program": KATA["program"]}}, "default_handler": "k"}, r"handlers.k.program: Docker 20.10.24 uses no shims"),
]  # fmt: skip


@pytest.mark.parametrize(("runtime", "expected"), REFUSED, ids=[e[1][:50] for e in REFUSED])
def test_a_handler_that_cannot_work_is_refused(
    tmp_path: Path, runtime: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path, describe("1.20.2", runtime))


def test_dockershim_takes_a_handler_as_its_default(tmp_path: Path) -> None:
    runtime = {**DOCKER, "handlers": {"nvidia": NVIDIA}, "default_handler": "nvidia"}
    found = config_of(load(tmp_path, describe("1.20.2", runtime)), "w1")
    assert found["default-runtime"] == "nvidia"


def test_hosts_agree_on_the_nodes_of_a_class(tmp_path: Path) -> None:
    runtime = {"engine": "containerd", "handlers": {"nvidia": NVIDIA}}
    own = {"handlers": {"nvidia": {"node_selector": {"gpu": "yes"}}}}
    with pytest.raises(ConfigError, match=r"nodes\[1\].runtime.handlers.nvidia.node_selector: must be equal on all hosts"):  # fmt: skip
        load(tmp_path, describe("1.36.2", runtime, {"runtime": own}))
