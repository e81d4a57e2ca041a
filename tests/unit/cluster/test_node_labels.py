"""Labels, annotations and taints of Nodes: what Kubernetes and bundler accept, and what kubelets register with."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.cluster.loader import load_cluster
from bundler.cluster.node_labels import list_planned_taints
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import make_config, make_flags
from bundler.cluster.taints import EFFECTS, Taint, parse_taint
from bundler.errors import ConfigError
from bundler.overlays.files import list_files
from bundler.overlays.templating import render_template
from bundler.render.context import make_context

NAME_63, NAME_64 = "a" * 63, "a" * 64
PREFIX_253 = ".".join(["a" * 49] * 5) + ".aaa"


def describe(
    *workers: dict[str, Any],
    version: str = "1.36.4",
    plane: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    nodes = [
        {"name": "cp", "address": "192.0.2.1", "roles": ["etcd", "control-plane"], **(plane or {})}
    ]
    nodes += [
        {"name": f"w{n}", "address": f"192.0.2.{10 + n}", "roles": ["worker"], **marks}
        for n, marks in enumerate(workers, 1)
    ]
    return {
        "apiVersion": "bundler/v1alpha1", "name": "lab", "kubernetes": {"version": version},
        "dns": {"provider": "none"}, "nodes": nodes, **more,
    }  # fmt: skip


def load(tmp_path: Path, *workers: dict[str, Any], **more: Any) -> tuple[Cluster, tuple[str, ...]]:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(describe(*workers, **more)))
    loaded = load_cluster(path)
    return loaded.cluster, loaded.warnings


def refuse(tmp_path: Path, *workers: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *workers, **more)
    return caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rack", "4"),
        (NAME_63, NAME_63),
        (f"{PREFIX_253}/{NAME_63}", ""),
        ("node-role.kubernetes.io/gpu", ""),
        ("node-restriction.kubernetes.io/zone", "a.b_c-D"),
        ("topology.kubernetes.io/zone", "fra1-a"),
        ("node.kubernetes.io/instance-type", "bare"),
        ("a.B_c-D", "1"),
    ],
)
def test_labels_that_kubernetes_accepts_are_accepted(tmp_path: Path, key: str, value: str) -> None:
    cluster, warnings = load(tmp_path, {"labels": {key: value}})
    assert cluster.nodes[1].labels == {key: value}
    assert not [line for line in warnings if "nodes[1]" in line]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (NAME_64, "", "must be NAME or PREFIX/NAME"),
        ("rack", NAME_64, "must be empty, or at most 63 letters"),
        (f"{PREFIX_253}a/x", "", "must have a DNS name before the /"),
        ("-rack", "", "must be NAME or PREFIX/NAME"),
        ("rack.", "", "must be NAME or PREFIX/NAME"),
        ("/rack", "", "must have a DNS name before the /"),
        ("example.com/", "", "must be NAME or PREFIX/NAME"),
        ("a/b/c", "", "must have a DNS name before the /"),
        ("Example.com/x", "", "must have a DNS name before the /"),
        ("rack", "a b", "must be empty, or at most 63 letters"),
        ("rack", "_a", "must be empty, or at most 63 letters"),
        ("rack", "größe", "must be empty, or at most 63 letters"),
        ("kubernetes.io/hostname", "w1", "the kubelet sets this label itself"),
        ("kubernetes.io/os", "linux", "the kubelet sets this label itself"),
        ("beta.kubernetes.io/arch", "amd64", "the kubelet sets this label itself"),
        ("bundler/leave", "1", "bundler/ is for bundler's own marks"),
    ],
)
def test_labels_that_kubernetes_or_bundler_refuses_are_refused(
    tmp_path: Path, key: str, value: str, said: str
) -> None:
    message = refuse(tmp_path, {"labels": {key: value}})
    assert message.count("\n") == 0
    assert "nodes[1].labels" in message
    assert said in message


def test_a_label_whose_value_yaml_reads_as_a_number_must_be_quoted(tmp_path: Path) -> None:
    assert 'write "4", in quotes' in refuse(tmp_path, {"labels": {"rack": 4}})
    assert 'write "true", in quotes' in refuse(tmp_path, {"labels": {"ssd": True}})


@pytest.mark.parametrize(
    ("text", "taint"),
    [
        ("nvidia.com/gpu=:NoSchedule", Taint(key="nvidia.com/gpu", value="", effect="NoSchedule")),
        ("pool=batch:NoExecute", Taint(key="pool", value="batch", effect="NoExecute")),
        ("x:PreferNoSchedule", Taint(key="x", value="", effect="PreferNoSchedule")),
    ],
)
def test_a_taint_is_parsed_as_kubectl_writes_it(text: str, taint: Taint) -> None:
    assert parse_taint(text) == taint
    assert parse_taint(str(taint)) == taint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu", "must be KEY=VALUE:EFFECT or KEY:EFFECT"),
        ("gpu=a", "must be KEY=VALUE:EFFECT or KEY:EFFECT"),
        ("gpu:noschedule", f"must end with an effect: {', '.join(EFFECTS)}"),
        ("gpu:", "must end with an effect"),
        (":NoSchedule", "must be NAME or PREFIX/NAME"),
        ("a b:NoSchedule", "must be NAME or PREFIX/NAME"),
        ("gpu=a=b:NoSchedule", "must be empty, or at most 63 letters"),
        ("gpu=a:b:NoSchedule", "must be empty, or at most 63 letters"),
        (f"{NAME_64}:NoSchedule", "must be NAME or PREFIX/NAME"),
        ("node.kubernetes.io/unreachable:NoExecute", "Kubernetes sets and removes"),
        (
            "node.cloudprovider.kubernetes.io/uninitialized:NoSchedule",
            "Kubernetes sets and removes",
        ),
        ("bundler/uninitialized:NoSchedule", "bundler/ is for bundler's own marks"),
    ],
)
def test_taints_that_kubernetes_or_bundler_refuses_are_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    message = refuse(tmp_path, {"taints": [text]})
    assert "nodes[1].taints[0]" in message
    assert said in message


def test_a_node_has_one_taint_of_each_key_and_effect(tmp_path: Path) -> None:
    message = refuse(tmp_path, {"taints": ["a=1:NoSchedule", "a=1:NoExecute", "a=2:NoSchedule"]})
    assert message.endswith(
        "nodes[1].taints[2]: a=1:NoSchedule has the same key and effect: keep one"
    )


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("kubectl.kubernetes.io/last-applied-configuration", "kubectl apply sets this annotation"),
        ("flannel.alpha.coreos.com/public-ip", "flannel sets this annotation"),
        ("volumes.kubernetes.io/controller-managed-attach-detach", "the kubelet sets this"),
        ("bundler/turn", "bundler/ is for bundler's own marks"),
        ("a b", "must be NAME or PREFIX/NAME"),
    ],
)
def test_annotations_of_programs_are_refused(tmp_path: Path, key: str, said: str) -> None:
    assert said in refuse(tmp_path, {"annotations": {key: "x"}})


def test_annotations_take_any_line_of_text_up_to_32_kib(tmp_path: Path) -> None:
    text = "50 % \"of\" 'a\\b' {{ x }} $HOME é漢"
    cluster, _ = load(tmp_path, {"annotations": {"Example.com/Owner": text}})
    assert cluster.nodes[1].annotations == {"Example.com/Owner": text}
    load(tmp_path, {"annotations": {"a": "x" * (32 * 1024 - 1)}})
    said = refuse(tmp_path, {"annotations": {"a": "x" * 32 * 1024}})
    assert "32769 bytes together, and at most 32 KiB are possible" in said


def test_marks_of_a_host_without_a_node_object_are_a_warning(tmp_path: Path) -> None:
    shared = {"labels": {"site": "fra1"}}
    _, warnings = load(tmp_path, shared, plane=shared)
    assert not [line for line in warnings if "Node object" in line]
    _, warnings = load(tmp_path, shared, plane={"labels": {"site": "fra1", "rack": "1"}})
    (line,) = (line for line in warnings if "Node object" in line)
    assert "label rack: cp has no Node object without the role worker" in line


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        ({"flags": {"register-with-taints": "a=b:NoSchedule"}}, "flags.register-with-taints"),
        ({"config": {"registerWithTaints": [{"key": "a", "effect": "NoSchedule"}]}}, "config.registerWithTaints"),
    ],
)  # fmt: skip
def test_taints_of_the_kubelet_and_of_nodes_exclude_one_another(
    tmp_path: Path, extra: dict[str, Any], place: str
) -> None:
    load(tmp_path, {}, extra={"kubelet": extra})
    load(tmp_path, {"annotations": {"a": "b"}}, extra={"kubelet": extra})
    said = refuse(tmp_path, {"labels": {"a": "b"}}, extra={"kubelet": extra})
    assert f"extra.kubelet.{place}: some nodes have labels or taints" in said


@pytest.mark.parametrize(
    ("taints", "add_on", "said"),
    [
        (["gpu:NoSchedule"], {"dns": {}}, "CoreDNS does not tolerate (gpu:NoSchedule on w1)"),
        (["gpu=1:NoExecute"], {"metrics_server": {}}, "metrics-server does not tolerate"),
        (["CriticalAddonsOnly:NoSchedule"], {"metrics_server": {}}, "metrics-server does not tolerate"),
        (["node-role.kubernetes.io/master:NoExecute"], {"dns": {}}, "CoreDNS does not tolerate"),
        (["gpu:PreferNoSchedule"], {"dns": {}, "metrics_server": {}}, ""),
        (["CriticalAddonsOnly=x:NoSchedule"], {"dns": {}}, ""),
        (["node-role.kubernetes.io/control-plane:NoSchedule"], {"dns": {}}, ""),
        (["gpu:NoSchedule"], {}, ""),
    ],
)  # fmt: skip
def test_an_add_on_needs_a_worker_that_it_tolerates(
    tmp_path: Path, taints: list[str], add_on: dict[str, Any], said: str
) -> None:
    worker = {"taints": taints}
    if said:
        assert said in refuse(tmp_path, worker, worker, **add_on)
    load(tmp_path, worker, {}, **add_on)
    if not said:
        load(tmp_path, worker, worker, **add_on)


def kubelet_of(plan: ClusterPlan, name: str) -> tuple[list[str], object]:
    """The flag and the field with which the kubelet of a node registers."""
    node = next(node for node in plan.nodes if node.name == name)
    flags = make_flags(plan.cluster, "kubelet", lambda text: text, node.features)
    config = make_config(plan.cluster, "kubelet", lambda _: "null", node.features)
    return [f for f in flags if "taints" in f], config.get("registerWithTaints")


@pytest.mark.parametrize("minor", ["1.14.0", "1.20.2", "1.22.0", "1.23.0", "1.37.1"])
def test_kubelets_with_labels_or_taints_register_tainted(minor: str) -> None:
    runtime = (
        {"engine": "docker", "version": "20.10.24"} if minor < "1.24" else {"engine": "containerd"}
    )
    marks = [{"labels": {"a": "b"}}, {"taints": ["a:NoExecute"]}, {"annotations": {"a": "b"}}, {}]
    document = describe(*marks, version=minor, runtime=runtime)
    plan = make_plan(Cluster.model_validate(document))
    flag, field = ["--register-with-taints=bundler/uninitialized=:NoSchedule"], None
    if minor >= "1.23":
        flag, field = [], [{"key": "bundler/uninitialized", "effect": "NoSchedule"}]
    assert kubelet_of(plan, "w1") == kubelet_of(plan, "w2") == (flag, field)
    assert kubelet_of(plan, "w3") == kubelet_of(plan, "w4") == ([], None)


def test_planned_taints_are_those_of_the_node_and_of_its_registration() -> None:
    document = describe({"taints": ["a=b:NoExecute", "c=:NoSchedule"], "labels": {"x": "y"}})
    plan = make_plan(Cluster.model_validate(document))
    assert list_planned_taints(plan.cluster, plan.nodes[1].marks) == (
        "a=b:NoExecute", "c:NoSchedule", "bundler/uninitialized:NoSchedule",
    )  # fmt: skip
    assert list_planned_taints(plan.cluster, plan.nodes[0].marks) == ()


def render_rows(document: dict[str, Any]) -> list[str]:
    plan = make_plan(Cluster.model_validate(document))
    plane = plan.nodes[0]
    (file,) = (f for f in list_files(plan, plane) if f.path.endswith("/node-labels.tsv"))
    text = render_template(file.content, file.origin, make_context(plan, plane, None))
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_control_planes_have_the_marks_of_every_worker() -> None:
    first = {
        "labels": {"rack": "4", "empty": ""},
        "annotations": {"a": 'é "x" \\ %', "b": ""},
        "taints": ["gpu=:NoSchedule", "a=b:NoExecute"],
    }
    assert render_rows(describe(first, {}, plane={"labels": {"rack": "1"}})) == [
        "w1\tnode\t-\t-\t-",
        'w1\tlabel\tempty\t-\t""',
        'w1\tlabel\track\t4\t"4"',
        'w1\tannotation\ta\t%C3%A9+%22x%22+%5C+%25\t"\\u00e9 \\"x\\" \\\\ %"',
        'w1\tannotation\tb\t-\t""',
        'w1\ttaint\ta:NoExecute\tb\t"b"',
        'w1\ttaint\tgpu:NoSchedule\t-\t""',
        "w2\tnode\t-\t-\t-",
    ]


def test_marks_change_only_the_files_of_control_planes_and_of_that_worker() -> None:
    """And of the worker only what its kubelet registers with and what it may leave with."""
    trees = []
    for marks in ({}, {"labels": {"rack": "4"}}, {"labels": {"rack": "5"}}):
        plan = make_plan(Cluster.model_validate(describe(marks, {})))
        trees.append(
            {
                (node.name, file.path): text
                for node in plan.nodes
                for file in list_files(plan, node)
                if file.suffix == ".j2" and (text := _render(plan, node, file)) is not None
            }
        )
    none, four, five = trees
    changed = {path for path in none if none[path] != four[path]}
    assert changed == {
        ("cp", "rootfs/etc/kubernetes/node-labels.tsv"),
        ("w1", "rootfs/etc/kubernetes/kubelet-config.yaml"),
        ("w1", "node.env"),
    }
    assert {path for path in none if four[path] != five[path]} == {
        ("cp", "rootfs/etc/kubernetes/node-labels.tsv")
    }


def _render(plan: ClusterPlan, node: Any, file: Any) -> str | None:
    from bundler.overlays.templating import NeedsStateError

    try:
        return render_template(file.content, file.origin, make_context(plan, node, None))
    except NeedsStateError:
        return None


def test_marks_of_defaults_groups_and_nodes_are_merged(tmp_path: Path) -> None:
    document = describe(
        {"groups": ["gpu"], "labels": {"rack": "4", "pool": None}, "taints": ["own=:NoExecute"]},
        {},
        defaults={"labels": {"site": "fra1", "pool": "general"}, "annotations": {"a": "b"}},
        groups={"gpu": {"labels": {"pool": "gpu"}, "taints": ["gpu=:NoSchedule"]}},
    )
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(document))
    loaded = load_cluster(path)
    _, first, second = loaded.cluster.nodes
    assert first.labels == {"site": "fra1", "rack": "4"}
    assert first.taints == ("gpu=:NoSchedule", "own=:NoExecute")
    assert second.labels == {"site": "fra1", "pool": "general"}
    assert second.annotations == {"a": "b"}
    assert not [line for line in loaded.warnings if "Node object" in line]


def test_a_fault_in_a_group_names_its_line_and_its_nodes(tmp_path: Path) -> None:
    groups = {"gpu": {"labels": {"kubernetes.io/os": "linux"}}}
    said = refuse(tmp_path, {"groups": ["gpu"]}, {"groups": ["gpu"]}, groups=groups)
    assert "groups.gpu.labels.kubernetes.io/os: the kubelet sets this label itself" in said
    assert "(nodes w1, w2)" in said


def test_taints_of_a_single_kubelet_exclude_marks_of_that_node(tmp_path: Path) -> None:
    own = {"extra": {"kubelet": {"config": {"registerWithTaints": []}}}}
    load(tmp_path, own, {"labels": {"a": "b"}})
    said = refuse(tmp_path, {**own, "labels": {"a": "b"}})
    assert "nodes[1].extra.kubelet.config.registerWithTaints: some nodes have labels" in said
