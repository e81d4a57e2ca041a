"""`bundler show NODE`: every value of a node, with the file and line it comes from."""

import re
from pathlib import Path

from support.command import run_bundler
from support.json_shapes import read_shape

BASE = """\
defaults:
  roles: [worker]
  arch: arm64
runtime:
  registries:
    - {host: a.example, mirrors: ["https://mirror.example"], insecure: true}
"""
SITE = """\
apiVersion: bundler/v1alpha1
name: site
include: base.yaml
kubernetes: {version: 1.36.2}
dns: {provider: none}
images: [{ref: "web.example/web:1", use: verify}]
groups:
  gpu:
    runtime:
      data_root: /data/containerd
      registries: [{host: b.example}]
    extra: {kubelet: {config: {maxPods: 50}}}
nodes:
  - {name: m1, address: 192.0.2.1, roles: [etcd, control-plane], arch: amd64}
nodes_from: racks.csv
"""
RACKS = "name,address,groups\nw1,192.0.2.11,gpu\nw2,192.0.2.12,\n"


def write_site(directory: Path) -> None:
    for name, text in {"cluster.yaml": SITE, "base.yaml": BASE, "racks.csv": RACKS}.items():
        (directory / name).write_text(text)


def test_every_value_has_its_file_and_line(tmp_path: Path) -> None:
    write_site(tmp_path)
    done = run_bundler(["show", "w1"], cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: re.split(r" {2,}", line) for line in done.stdout.splitlines()}
    for expected in (
        ["name", "w1", "racks.csv:2 w1"],
        ["roles", "[worker]", "base.yaml:2 defaults"],
        ["arch", "arm64", "base.yaml:3 defaults"],
        ["groups", "[gpu]", "racks.csv:2 w1"],
        ["runtime.engine", "containerd", "default"],
        ["runtime.data_root", "/data/containerd", "cluster.yaml:10 groups.gpu"],
        ["runtime.registries[0].host", "a.example", "base.yaml:6"],
        ["runtime.registries[0].insecure", "true", "base.yaml:6"],
        ["runtime.registries[1].insecure", "false", "default"],
        ["extra.kubelet.config.maxPods", "50", "cluster.yaml:12 groups.gpu"],
        ["kubernetes.version", "1.36.2", "cluster.yaml:4"],
        ["kubernetes.kubelet_root", "/var/lib/kubelet", "default"],
    ):
        assert rows[expected[0]] == expected
    assert (
        rows["runtime.registries[1].host"][2]
        == "cluster.yaml:11 groups.gpu.runtime.registries[0].host"
    )


def test_json_has_the_same_values_with_their_types(tmp_path: Path) -> None:
    write_site(tmp_path)
    done = run_bundler(["show", "w1", "--json"], cwd=tmp_path, text=True)
    data = read_shape(done.stdout, "show")
    assert (data["format"], data["cluster"], data["node"]) == ("show/1", "site", "w1")
    values = {each.pop("key"): each for each in data["values"]}
    assert values["extra.kubelet.config.maxPods"] == {
        "value": 50, "file": "cluster.yaml", "line": 12, "column": 32,
        "from": "groups.gpu.extra.kubelet.config.maxPods",
    }  # fmt: skip
    assert values["interface"] == {
        "value": None, "file": None, "line": None, "column": None, "from": "default",
    }  # fmt: skip


def test_a_node_without_groups_has_the_values_of_the_cluster(tmp_path: Path) -> None:
    write_site(tmp_path)
    shown = run_bundler(["show", "w2"], cwd=tmp_path, text=True).stdout
    assert re.search(r"^runtime.data_root +/var/lib/containerd +default$", shown, re.MULTILINE)
    assert "gpu" not in shown


def test_text_of_several_lines_takes_one_line(tmp_path: Path) -> None:
    write_site(tmp_path)
    with (tmp_path / "cluster.yaml").open("a") as file:
        file.write('defaults: {files: {/etc/site/motd: {content: "one\\ntwo\\n"}}}\n')
    shown = run_bundler(["show", "w2"], cwd=tmp_path, text=True).stdout
    line = next(
        line for line in shown.splitlines() if line.startswith("files./etc/site/motd.content")
    )
    assert re.search(r'content +"one\\ntwo\\n" +cluster.yaml:16 defaults$', line)


def test_an_unknown_node_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write_site(tmp_path)
    done = run_bundler(["show", "w11"], cwd=tmp_path, text=True)
    assert done.returncode == 2
    assert "w11: the cluster has no such node" in done.stderr
    assert "did you mean 'w1'?" in done.stderr
