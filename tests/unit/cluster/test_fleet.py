"""Fleets: what defaults, groups, included files and lists of nodes make of each node."""

import json
import os
import re
from pathlib import Path

import pytest

from bundler.cluster.loader import Loaded, load_cluster
from bundler.cluster.parts import MOST_FILES
from bundler.cluster.plan import make_plan
from bundler.cluster.settings import make_config
from bundler.errors import ConfigError

HEAD = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {version: 1.36.2}
dns: {provider: none}
images: [{ref: "web.example/web:1", use: verify}]
"""
MASTER = "  - {name: m1, address: 192.0.2.1, roles: [etcd, control-plane]}\n"


def write(directory: Path, text: str, name: str = "cluster.yaml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(directory: Path, text: str) -> Loaded:
    return load_cluster(write(directory, HEAD + text))


def refuse(directory: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(directory, text)
    return caught.value.message.replace(f"{directory}/", "")


def kubelet(loaded: Loaded, name: str) -> dict[str, object]:
    plan = make_plan(loaded.cluster)
    node = next(node for node in plan.nodes if node.name == name)
    own = plan.on_host(node).cluster.extra["kubelet"].config
    config = make_config(plan.on_host(node).cluster, "kubelet", lambda _: "null")
    assert all(config[key] == value for key, value in own.items())
    return own


GROUPED = """\
defaults:
  roles: [worker]
  extra: {kubelet: {config: {maxPods: 100, registryBurst: 20}}}
groups:
  gpu:
    runtime: {data_root: /data/containerd}
    extra: {kubelet: {config: {maxPods: 50}}}
  small: {extra: {kubelet: {config: {maxPods: 30}}}}
extra: {kubelet: {config: {maxPods: 110, imageMinimumGCAge: 5m}}}
nodes:
  - {name: m1, address: 192.0.2.1, roles: [etcd, control-plane]}
  - {name: w1, address: 192.0.2.11}
  - {name: w2, address: 192.0.2.12, groups: [gpu, small]}
  - {name: w3, address: 192.0.2.13, groups: [small, gpu], runtime: {data_root: /fast/containerd}}
  - {name: w4, address: 192.0.2.14, groups: [gpu], extra: {kubelet: {config: {maxPods: 7}}}}
"""


def test_a_node_wins_over_its_groups_in_their_order_and_these_over_defaults_and_the_top(
    tmp_path: Path,
) -> None:
    loaded = load(tmp_path, GROUPED)
    found = {name: kubelet(loaded, name) for name in ("w1", "w2", "w3", "w4")}
    assert {name: config["maxPods"] for name, config in found.items()} == {
        "w1": 100, "w2": 30, "w3": 50, "w4": 7,
    }  # fmt: skip
    assert all(config["registryBurst"] == 20 for config in found.values())
    assert all(config["imageMinimumGCAge"] == "5m" for config in found.values())
    roots = {
        node.name: loaded.cluster.on_host(node).runtime.data_root for node in loaded.cluster.nodes
    }
    assert roots == {
        "m1": "/var/lib/containerd",
        "w1": "/var/lib/containerd",
        "w2": "/data/containerd",
        "w3": "/fast/containerd",
        "w4": "/data/containerd",
    }


def test_a_description_without_groups_has_no_node_of_its_own_kind(description: Path) -> None:
    cluster = load_cluster(description).cluster
    assert all(cluster.on_host(node) is cluster for node in cluster.nodes)


def test_null_drops_what_is_inherited(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "runtime: {engine: containerd, data_root: /data/containerd}\n"
        "groups: {a: {runtime: {data_root: /a/containerd}, extra: {kubelet: {flags: {v: 4}}}}}\n"
        f"nodes:\n{MASTER}"
        "  - {name: w1, address: 192.0.2.11, roles: [worker], groups: [a],"
        " runtime: {data_root: null}}\n"
        "  - {name: w2, address: 192.0.2.12, roles: [worker], groups: [a], runtime: null,"
        " extra: {kubelet: null}}\n",
    )
    hosts = {node.name: loaded.cluster.on_host(node) for node in loaded.cluster.nodes}
    assert hosts["m1"].runtime.data_root == "/data/containerd"
    assert hosts["w1"].runtime.data_root == "/var/lib/containerd"
    assert hosts["w1"].extra["kubelet"].flags == {"v": 4}
    assert hosts["w2"].runtime.data_root == "/var/lib/containerd"
    assert hosts["w2"].extra == {}


def test_null_of_a_field_leaves_it_to_the_program(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "extra: {kubelet: {config: {maxPods: 50}}}\n"
        f"nodes:\n{MASTER}  - {{name: w1, address: 192.0.2.11, roles: [worker],"
        " extra: {kubelet: {config: {maxPods: null}}}}\n",
    )
    assert kubelet(loaded, "w1") == {"maxPods": None}


def test_lists_that_join_are_appended_and_null_first_begins_anew(tmp_path: Path) -> None:
    registries = "runtime: {registries: [%s]}"
    loaded = load(
        tmp_path,
        f"runtime:\n  registries: [{{host: a.example, insecure: true}}, {{host: b.example}}]\n"
        f"groups: {{more: {{{registries % '{host: c.example}, {host: a.example, insecure: false}'}}}}}\n"
        f"nodes:\n{MASTER}"
        "  - {name: w1, address: 192.0.2.11, roles: [worker], groups: [more]}\n"
        "  - {name: w2, address: 192.0.2.12, roles: [worker], groups: [more],"
        f" {registries % 'null, {host: d.example}'}}}\n",
    )
    hosts = {node.name: loaded.cluster.on_host(node).runtime for node in loaded.cluster.nodes}
    shown = {
        name: [(each.host, each.insecure) for each in runtime.registries]
        for name, runtime in hosts.items()
    }
    assert shown["w1"] == [("a.example", False), ("b.example", False), ("c.example", False)]
    assert shown["w2"] == [("d.example", False)]


REFUSED = [
    ("groups: {g: {}}\nnodes:\n  - {name: w, groups: [h]}\n", r"nodes\[0\].groups\[0\]: there is no group h; groups: g"),
    ("groups: {gpu: {}}\nnodes:\n  - {name: w, groups: [gpo]}\n", r"there is no group gpo; did you mean 'gpu'\?"),
    ("groups: {g: {}}\nnodes:\n  - {name: w, groups: [g, g]}\n", r"nodes\[0\].groups\[1\]: g is listed twice: keep one"),
    ("groups: {g: {groups: [h]}}\nnodes: []\n", r":6:14: groups.g.groups: each node has its own groups: write it there"),
    ("defaults: {name: w}\nnodes: []\n", r":6:12: defaults.name: each node has its own name: write it there"),
    ("defaults: {network: {}}\nnodes: []\n", r":6:12: defaults.network: must be equal on all hosts: write network at the top"),
    ("groups: {g: {etcd: {version: 3.5.1}}}\nnodes: []\n", r"groups.g.etcd.version: must be equal on all hosts: .*; of etcd may differ: backup, data_dir, wal_dir"),
    ("groups: {g: {extra: {kube-apiserver: {}}}}\nnodes: []\n", r"groups.g.extra.kube-apiserver: must be equal on all hosts"),
    ("groups: {g: {extra: {kubelt: {}}}}\nnodes:\n  - {name: w, address: 192.0.2.1, roles: [etcd, control-plane], groups: [g]}\n", r"groups.g.extra.kubelt: unknown component; known: .* \(node w\)"),
    ("groups: {g: {rols: [worker]}}\nnodes:\n  - {name: w, address: 192.0.2.1, roles: [etcd], groups: [g]}\n", r":6:14: groups.g.rols: unknown key; did you mean 'roles'\?"),
    ("groups: [g]\nnodes: []\n", r":6:1: groups: must be a mapping: name: \{keys of a node\}"),
    ("groups: {g: 5}\nnodes: []\n", r"groups.g: must be a mapping: keys of a node"),
    ("defaults: [x]\nnodes: []\n", r"defaults: must be a mapping: keys of a node"),
    ("groups: {Big_One: {}}\nnodes: []\n", r"groups.Big_One: must be a DNS label"),
    ("groups: {g: {arch: i386}}\nnodes: []\n", r":6:14: groups.g.arch: must be 'amd64' or 'arm64', not 'i386'"),
    ("defaults: {extra: {kubelet: {config: {maxPods: many}}}}\nnodes:\n  - {name: w, address: 192.0.2.1, roles: [etcd, control-plane, worker]}\n", r":6:39: defaults.extra.kubelet.config.maxPods: must be a whole number.* \(node w\)"),
    ("defaults: {runtime: {log_max_size: 10m}}\nnodes:\n  - {name: w, address: 192.0.2.1, roles: [etcd, control-plane]}\n", r"defaults.runtime.log_max_size: unknown key here: it belongs to another `engine`"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[e[1][:50] for e in REFUSED])
def test_a_fault_names_the_place_that_it_comes_from(
    tmp_path: Path, text: str, expected: str
) -> None:
    message = refuse(tmp_path, text)
    assert len(re.findall(expected, message)) == 1, message


def test_a_fault_of_a_group_is_named_once_with_the_nodes_that_have_it(tmp_path: Path) -> None:
    nodes = "".join(
        f"  - {{name: w{n}, address: 192.0.2.{n}, roles: [worker], groups: [g]}}\n"
        for n in range(10, 60)
    )
    text = "groups: {g: {extra: {kubelet: {config: {cpuManagerPolicy: fast}}}}}\n"
    message = refuse(tmp_path, f"{text}nodes:\n{MASTER}{nodes}")
    assert len(message.splitlines()) == 1
    assert message.endswith("(nodes w10, w11, w12 and 47 more)")


def test_a_group_without_nodes_is_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"groups: {{spare: {{arch: arm64}}}}\nnodes:\n{MASTER}")
    assert any(
        re.search(r":6:10: groups.spare: no node is in this group", warning)
        for warning in loaded.warnings
    )


def test_merge_keys_take_anchors_of_the_same_file_and_nothing_beyond_the_bounds(
    tmp_path: Path,
) -> None:
    loaded = load(
        tmp_path,
        "x-disks: &disks {data_root: /data/containerd}\n"
        "groups: {a: {runtime: {<<: *disks}}, b: {runtime: {<<: *disks, cgroup_driver: systemd}}}\n"
        f"nodes:\n{MASTER}"
        "  - {name: w1, address: 192.0.2.11, roles: [worker], groups: [a]}\n"
        "  - {name: w2, address: 192.0.2.12, roles: [worker], groups: [b]}\n",
    )
    hosts = [loaded.cluster.on_host(node).runtime for node in loaded.cluster.nodes[1:]]
    assert [host.data_root for host in hosts] == ["/data/containerd"] * 2
    levels = "".join(
        f"x-{n}: &x{n} {{a: *x{n - 1}, b: *x{n - 1}, c: *x{n - 1}}}\n" for n in range(1, 12)
    )
    assert "write less" in refuse(tmp_path, f"x-0: &x0 {{a: 1}}\n{levels}nodes: []\n")


def test_what_all_nodes_inherit_has_a_bound(tmp_path: Path) -> None:
    big = json.dumps({f"key{n}": "x" for n in range(2000)})
    nodes = "".join(f"  - {{name: w{n}}}\n" for n in range(600))
    message = refuse(
        tmp_path, f"defaults: {{extra: {{kubelet: {{flags: {big}}}}}}}\nnodes:\n{nodes}"
    )
    assert "all nodes together have more than 1000000 values: write less in groups" in message


BASE = """\
kubernetes: {version: 1.36.2}
defaults: {roles: [worker]}
groups: {gpu: {extra: {kubelet: {config: {maxPods: 50}}}}}
images: [{ref: "web.example/base:1"}]
"""


def test_a_file_is_merged_over_those_that_it_includes(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base/base.yaml")
    write(
        tmp_path, "groups: {gpu: {arch: arm64}}\nkubernetes: {version: 1.35.1}\n", "base/more.yaml"
    )
    loaded = load(
        tmp_path,
        "include: [base/base.yaml, base/more.yaml]\n"
        "groups: {gpu: {extra: {kubelet: {config: {maxPods: 40}}}}}\n"
        f"nodes:\n{MASTER}  - {{name: w1, address: 192.0.2.11, groups: [gpu]}}\n",
    )
    cluster = loaded.cluster
    assert cluster.kubernetes.version == "1.36.2"  # of the file itself
    assert cluster.nodes[1].arch == "arm64"
    assert kubelet(loaded, "w1") == {"maxPods": 40}
    assert [image.ref for image in cluster.images[:2]] == [
        "web.example/base:1",
        "web.example/web:1",
    ]
    assert list(loaded.digests) == ["cluster.yaml", "base/base.yaml", "base/more.yaml"]


def test_a_fault_of_an_included_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path, "network: {proxy_mod: ipvs}\n", "base/base.yaml")
    message = refuse(tmp_path, f"include: base/base.yaml\nnodes:\n{MASTER}")
    assert (
        message == "base/base.yaml:1:11: network.proxy_mod: unknown key; did you mean 'proxy_mode'?"
    )


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path, "audit: {policy: policy.yaml}\nnodes_from: rack.csv\n", "base/base.yaml")
    write(
        tmp_path,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n",
        "base/policy.yaml",
    )
    write(tmp_path, "name,address,roles\nw1,192.0.2.11,worker\n", "base/rack.csv")
    cluster = load(tmp_path, f"include: base/base.yaml\nnodes:\n{MASTER}").cluster
    assert cluster.audit.policy == tmp_path / "base/policy.yaml"
    assert [node.name for node in cluster.nodes] == ["w1", "m1"]


def test_files_that_may_not_be_read_are_refused(tmp_path: Path) -> None:
    site = tmp_path / "sites" / "a"
    write(tmp_path, "{}", "secret.yaml")
    site.mkdir(parents=True)
    (site / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (site / "circle.yaml").symlink_to("circle.yaml")
    os.mkfifo(site / "pipe.yaml")
    write(site, "include: b.yaml\n", "a.yaml")
    write(site, "include: a.yaml\n", "b.yaml")
    write(site, "{}\n", "twice.yaml")
    write(site, "- a list\n", "list.yaml")
    write(site, "a: {b: c: d}\n", "broken.yaml")
    write(site.parent, "{}\n", "above.yaml")
    names = (
        "/etc/passwd, ../../secret.yaml, link.yaml, circle.yaml, pipe.yaml, none.yaml, a.yaml,"
        " twice.yaml, twice.yaml, list.yaml, broken.yaml, ., cluster.yaml, ../above.yaml, 5"
    )
    message = refuse(site, f"include: [{names}]\nnodes_from: [list.txt]\nnodes: []\n")
    for expected in (
        r"include\[0\]: /etc/passwd: must be relative to cluster.yaml",
        r"include\[1\]: ../../secret.yaml is outside of .*sites: files must be in the git work tree",
        r"include\[2\]: link.yaml is outside of",
        r"include\[3\]: circle.yaml: ",
        r"include\[4\]: pipe.yaml: must be a regular file",
        r"include\[5\]: none.yaml: No such file or directory",
        r"b.yaml:1:1: include: a.yaml includes itself: cluster.yaml → a.yaml → b.yaml → a.yaml",
        r"include\[8\]: twice.yaml is read already, named in .*cluster.yaml:6: keep one",
        r"list.yaml:1:1: must be a mapping with keys of cluster.yaml",
        r"broken.yaml:1:9: not valid YAML",
        r"include\[11\]: .: must be a regular file",
        r"include\[12\]: cluster.yaml includes itself",
        r"include\[14\]: must be the path of a file, or a list of paths",
        r"nodes_from\[0\]: list.txt: must end in .csv, .yaml or .yml",
    ):
        assert len(re.findall(expected, message)) == 1, (expected, message)
    assert "above.yaml" not in message


def test_a_work_tree_may_share_files_above_the_directory_of_a_cluster(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, BASE, "base.yaml")
    site = tmp_path / "sites" / "fra1" / "prod"
    site.mkdir(parents=True)
    cluster = load(site, f"include: ../../../base.yaml\nnodes:\n{MASTER}").cluster
    assert cluster.images[0].ref == "web.example/base:1"


def test_files_and_bytes_have_bounds(tmp_path: Path) -> None:
    for number in range(MOST_FILES):
        write(tmp_path, "{}\n", f"{number}.yaml")
    names = ", ".join(f"{number}.yaml" for number in range(MOST_FILES))
    assert f"63.yaml: more than {MOST_FILES} files: merge some" in refuse(
        tmp_path, f"include: [{names}]\nnodes: []\n"
    )
    write(tmp_path, f"# {'x' * (4 << 20)}\n", "0.yaml")
    assert "0.yaml:1:1: larger than 4 MiB" in refuse(tmp_path, "include: 0.yaml\nnodes: []\n")
    for number in range(5):
        write(tmp_path, f"# {'x' * ((4 << 20) - 4)}\n", f"{number}.yaml")
    assert "all files together are larger than 16 MiB" in refuse(
        tmp_path, "include: [0.yaml, 1.yaml, 2.yaml, 3.yaml, 4.yaml]\nnodes: []\n"
    )


RACKS = """\
name,address,roles,groups,runtime.data_root,extra.kubelet.config.maxPods
w1,192.0.2.11,worker,gpu big,/data/containerd,42

w2,192.0.2.12,etcd worker,,,
"""


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_nodes_come_from_a_table(tmp_path: Path, separator: str, end: str) -> None:
    table = RACKS.replace(",", separator).replace("\n", end)
    (tmp_path / "racks.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    loaded = load(
        tmp_path, f"groups: {{gpu: {{}}, big: {{}}}}\nnodes:\n{MASTER}nodes_from: racks.csv\n"
    )
    one, two = loaded.cluster.nodes[1:]
    assert one.groups == ("gpu", "big")
    assert loaded.cluster.on_host(one).runtime.data_root == "/data/containerd"
    assert kubelet(loaded, "w1") == {"maxPods": 42}
    assert two.roles == ("etcd", "worker")
    assert two.groups == ()


def test_nodes_come_from_a_list_in_a_file(tmp_path: Path) -> None:
    write(tmp_path, "- {name: w1, address: 192.0.2.11, roles: [worker]}\n", "rack.yaml")
    cluster = load(tmp_path, f"nodes:\n{MASTER}nodes_from: [rack.yaml]\n").cluster
    assert [node.name for node in cluster.nodes] == ["m1", "w1"]
    write(tmp_path, "- {name: w1, address: 192.0.2.300, roles: [worker]}\n", "rack.yaml")
    message = refuse(tmp_path, f"nodes:\n{MASTER}nodes_from: [rack.yaml]\n")
    assert message.startswith("rack.yaml:1:14: [0].address: '192.0.2.300' is not a valid IPv4")


TABLES = [
    ("", r"racks.csv:1:1: is empty: the first line names columns"),
    ("nam,address\n", r"racks.csv:1:1: the first line must name columns, one of them name, not nam"),
    ("name,,x\n", r"racks.csv:1:1: column 2 has no name: give it one"),
    ("name,arch,arch\n", r"racks.csv:1:1: two columns have the name arch: keep one"),
    ("name,address\nw1\n", r"racks.csv:2:1: 1 cells for 2 columns: quote cells with a comma"),
    ('name,address\n"w1,192.0.2.11\n', r"racks.csv:2:1: not valid CSV: unexpected end of data"),
    ("name,adress\nw1,192.0.2.11\n", r"racks.csv:2:4: w1.adress: unknown column; did you mean 'address'\?"),
    ("name,address,roles\nw1,192.0.2.300,worker\n", r"racks.csv:2:4: w1.address: '192.0.2.300' is not a valid IPv4 address"),
    ("name,address,roles\n,192.0.2.11,worker\n", r"racks.csv:2:1: line 2.name: is missing"),
    ("name,address,roles\nm1,192.0.2.11,worker\n", r"racks.csv:2:1: m1.name: m1 is also the name of nodes\[0\]"),
    ("name,address,roles,runtime,runtime.data_root\nw1,192.0.2.11,worker,x,/data\n", r"racks.csv:2:24: w1.runtime.data_root: another column has a value in its place"),
    ("name,address,roles,extra.kubelet.config.maxPods\nw1,192.0.2.11,worker,many\n", r"racks.csv:2:22: w1.extra.kubelet.config.maxPods: must be a whole number"),
    ("name,address\nw1,192.0.2.11\x1b\n", r"racks.csv:2:1: has the character U\+001B"),
    ('name,address\nw1,"192.0.2.11\n"\nw2,192.0.2.1\u00a02\n', r"racks.csv:4:4: w2.address: has the character U\+00A0 \(NO-BREAK SPACE\)"),
    ("name,extra.kubelet.config.maxPods\nw1,[1\n", r"racks.csv:2:4: w1.extra.kubelet.config.maxPods: .*not valid YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "expected"), TABLES, ids=[e[1][:50] for e in TABLES])
def test_a_fault_of_a_table_names_its_line_and_column(
    tmp_path: Path, table: str, expected: str
) -> None:
    write(tmp_path, table, "racks.csv")
    message = refuse(tmp_path, f"nodes:\n{MASTER}nodes_from: racks.csv\n")
    assert len(re.findall(expected, message)) == 1, message


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "racks.csv").write_bytes(b"name\n\xff\n")
    assert "racks.csv:1:1: not UTF-8 text" in refuse(tmp_path, "nodes_from: racks.csv\n")


@pytest.mark.parametrize(
    ("sans", "expected"),
    [
        (
            "[api.example, 192.0.2.11]",
            r"nodes\[0\].sans\[1\]: 192.0.2.11 is the name or address of w1",
        ),
        ("[w1]", r"nodes\[0\].sans\[0\]: w1 is the name or address of w1"),
        ("['2001:db8::1']", r"nodes\[0\].sans\[0\]: IPv6 and dual-stack are not supported"),
        ("[1.2.3]", r"nodes\[0\].sans\[0\]: Expected 4 octets in '1.2.3'"),
        ("[Api_1]", r"nodes\[0\].sans\[0\]: must be a DNS name"),
    ],
)
def test_names_that_a_host_cannot_have_are_refused(
    tmp_path: Path, sans: str, expected: str
) -> None:
    node = MASTER.replace("roles:", f"sans: {sans}, roles:")
    workers = "  - {name: w1, address: 192.0.2.11, roles: [worker]}\n"
    assert re.search(expected, refuse(tmp_path, f"nodes:\n{node}{workers}"))


def test_names_join_over_the_layers_and_workers_have_none(tmp_path: Path) -> None:
    node = MASTER.replace("roles:", "groups: [g], sans: [c.example], roles:")
    text = f"defaults: {{sans: [a.example]}}\ngroups: {{g: {{sans: [b.example]}}}}\nnodes:\n{node}"
    assert load(tmp_path, text).cluster.nodes[0].sans == ("a.example", "b.example", "c.example")
    worker = "  - {name: w1, address: 192.0.2.11, roles: [worker]}\n"
    assert "defaults.sans: only certificates of control planes and etcd members" in refuse(
        tmp_path, f"{text}{worker}"
    )
