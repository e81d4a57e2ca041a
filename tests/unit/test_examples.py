"""The files in examples/ are valid, their upstream files are pinned, and they build."""

import json
from pathlib import Path

import pytest
import yaml
from support.descriptions import write_upstream
from support.registries import MadeImage, make_layer, run_registry

from bundler.cache.store import Cache
from bundler.catalog import default_kubernetes
from bundler.cluster.effective import list_settings
from bundler.cluster.loader import load_cluster
from bundler.cluster.schema import Cluster
from bundler.formats.image_references import parse_reference
from bundler.pipeline import build, preview, render
from bundler.project import Inputs
from bundler.sources.images.registry import RegistryOptions

EXAMPLES = Path(__file__).parents[2] / "examples"


def copy_example(name: str, directory: Path) -> Path:
    """Copy an example; return its path."""
    text = (EXAMPLES / f"{name}.yaml").read_text()
    path = directory / "cluster.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["single", "production"])
def test_all_upstream_files_of_an_example_are_pinned(tmp_path: Path, name: str) -> None:
    description = copy_example(name, tmp_path)
    shown = preview(
        Inputs(description=description, cache=Cache(tmp_path / "cache"), offline=True), tmp_path
    )
    assert all(artifact.source.startswith("catalog: ") for artifact, _ in shown.artifacts)
    assert len(shown.bundles) == len(shown.cluster.nodes)


def test_the_tutorials_upstream_files_are_pinned_except_flannel(tmp_path: Path) -> None:
    description = copy_example("tutorial", tmp_path)
    shown = preview(
        Inputs(description=description, cache=Cache(tmp_path / "cache"), offline=True), tmp_path
    )
    own = [a.component for a, _ in shown.artifacts if not a.source.startswith("catalog: ")]
    assert own == ["flanneld"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single", "production", "tutorial"])
def test_every_example_builds(tmp_path: Path, name: str) -> None:
    description = copy_example(name, tmp_path)
    pins = write_upstream(tmp_path, description)
    cluster = load_cluster(description).cluster
    with run_registry() as registry:
        mirrors = {}
        for image in cluster.images:
            reference = parse_reference(image.ref)
            mirrors[reference.registry] = (f"http://{registry.host}",)
            if not image.file:
                made = MadeImage([make_layer("x", image.ref.encode())])
                registry.put(reference.repository, reference.tag or "", made)
        inputs = Inputs(
            description=description, cache=Cache(tmp_path / "cache"), pins=pins,
            mirrors=(str(tmp_path / "mirror"),), registries=RegistryOptions(mirrors=mirrors),
        )  # fmt: skip
        bundles = build(inputs, tmp_path / "dist")
    assert [bundle.path.name for bundle in bundles] == [
        *(f"{cluster.name}-{node.name}.tar.gz" for node in cluster.nodes),
        "RUNBOOK.md",
    ]


@pytest.mark.slow
def test_the_tutorial_renders_as_written_with_warnings_for_weak_choices(
    tmp_path: Path,
) -> None:
    description = copy_example("tutorial", tmp_path)
    warnings = "\n".join(load_cluster(description).warnings)
    for weak in ("network.flannel.store", "pki.authorities", "pki.key"):
        assert weak in warnings
    inputs = Inputs(description=description, cache=Cache(tmp_path / "cache"))
    render(inputs, tmp_path / "trees", text_only=True)
    master, node = (tmp_path / "trees" / name / "rootfs" for name in ("k8s-master01", "k8s-node01"))
    etcd = (master / "etc/systemd/system/etcd.service").read_text()
    for flag in ("--data-dir=/data/k8s/etcd/data", "--wal-dir=/data/k8s/etcd/wal", "--enable-v2"):
        assert flag in etcd
    kubelet = (node / "etc/systemd/system/kubelet.service").read_text()
    assert "--root-dir=/data/k8s/k8s/kubelet" in kubelet
    assert "network-plugin" not in kubelet
    docker = (node / "etc/systemd/system/docker.service").read_text()
    assert "EnvironmentFile=-/run/flannel/docker" in docker
    assert json.loads((node / "etc/docker/daemon.json").read_text())["debug"] is True
    cas = {
        (master / path).read_bytes()
        for path in ("etc/etcd/pki/ca.crt", "etc/kubernetes/pki/ca.crt",
                     "etc/kubernetes/pki/front-proxy-ca.crt")
    }  # fmt: skip
    assert len(cas) == 1
    assert json.loads((node / "etc/flannel/network.json").read_text()) == {
        "Network": "172.30.0.0/16", "SubnetLen": 21, "Backend": {"Type": "vxlan"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "version", "engine"),
    [("tutorial", "1.14.2", "docker"),
     ("single", default_kubernetes(), "containerd"), ("production", default_kubernetes(), "containerd")],
)  # fmt: skip
def test_an_example_with_old_versions_names_them_and_others_have_the_newest(
    tmp_path: Path, name: str, version: str, engine: str
) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    if version != default_kubernetes():
        assert f"kubernetes: {{version: {version}" in text
    data = yaml.safe_load(text)
    cluster = Cluster.model_validate({key: data[key] for key in data if key != "packages"})
    assert (cluster.kubernetes.version, cluster.runtime.engine) == (version, engine)


def test_the_smallest_example_of_the_readme_needs_no_pins(tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    block = readme[readme.index("```yaml\napiVersion:") :].split("```")[1].removeprefix("yaml\n")
    (tmp_path / "cluster.yaml").write_text(block)
    shown = preview(
        Inputs(description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache")), tmp_path
    )
    assert all(artifact.source.startswith("catalog: ") for artifact, _ in shown.artifacts)
    assert shown.cluster.kubernetes.version == default_kubernetes()
    assert shown.cluster.runtime.engine == "containerd"


def test_forty_nodes_are_described_in_45_lines_and_a_table() -> None:
    path = EXAMPLES / "fleet.yaml"
    assert len(path.read_text().splitlines()) <= 45
    cluster = load_cluster(path).cluster
    assert len(cluster.nodes) == 40
    hosts = {node.name: cluster.on_host(node) for node in cluster.nodes}
    assert {host.runtime.data_root for host in hosts.values()} == {
        "/nvme/containerd", "/var/lib/containerd",
    }  # fmt: skip
    gpus = [
        name
        for name, host in hosts.items()
        if host.extra["kubelet"].config.get("cpuManagerPolicy") == "static"
    ]
    assert gpus == ["w16", "w17", "w18", "w35", "w36", "w37"]
    assert hosts["m1"].etcd.wal_dir == "/nvme/etcd-wal"
    nodes = {node.name: node for node in cluster.nodes}
    assert nodes["w17"].labels == {"site": "fra1", "accelerator": "nvidia", "rack": "1"}
    assert nodes["w36"].labels["rack"] == "2"
    assert nodes["w17"].taints == ("nvidia.com/gpu=:NoSchedule",)
    assert nodes["m1"].labels == {}


@pytest.mark.parametrize(
    ("node", "key", "group"),
    [
        ("m1", "etcd.wal_dir", "masters"),
        ("w1", "runtime.registries[0].host", "rack1"),
        ("w19", "runtime.registries[0].host", "rack2"),
        ("w2", "runtime.data_root", "nvme"),
        ("w3", "extra.kubelet.config.imageGCHighThresholdPercent", "hdd"),
        ("w17", "taints", "gpu"),
    ],
)
def test_show_names_each_group_of_the_fleet(node: str, key: str, group: str) -> None:
    settings = list_settings(load_cluster(EXAMPLES / "fleet.yaml"), node)
    place = next(each.place for each in settings if each.key == key)
    assert place is not None
    assert (place.file.name, place.path[:2]) == ("fleet.yaml", ("groups", group))
