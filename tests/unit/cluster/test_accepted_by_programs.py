"""The programs of every minor accept the rendered flags, fields and manifests.

Complete bundles are rendered for every minor, runtime, network and proxy mode, each with one of the
load balancers; flags and fields alone for every load balancer too. The tables
(bundler/catalog/accepted-*.tsv, deprecated-flags.tsv, apis.tsv, feature-gates.tsv) come from the
programs and their source code.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.descriptions import write_archive
from support.tokens import make_tokens
from support.version_tables import deprecated_flags, served_apis

from bundler.cluster.accepted import (
    accepted_fields,
    accepted_flags,
    field_types,
    is_accepted_field,
    is_within,
    known_gates,
    read_table,
)
from bundler.cluster.checks import check_cluster
from bundler.cluster.components import MINORS, PROXY_MODES, RUNTIMES, key_of
from bundler.cluster.field_types import check_fields as check_types
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.settings import list_flags, make_config, make_flags
from bundler.pki.cluster_pki import Pki, ensure_pki
from bundler.render.node import render_node
from bundler.render.state_values import Secrets
from bundler.state.directory import open_state
from bundler.state.encryption import EncryptionKey

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
CONFIGS = {
    "kubelet": "rootfs/etc/kubernetes/kubelet-config.yaml",
    "kube-proxy": "rootfs/etc/kubernetes/kube-proxy-config.yaml",
    "kube-scheduler": "rootfs/etc/kubernetes/scheduler-config.yaml",
}
NETWORKS = {
    "static": {"plugin": "static"},
    "flannel": {"plugin": "flannel", "flannel": {"backend": "host-gw"}},
    "flannel-etcd": {"plugin": "flannel", "flannel": {"store": "etcd"}},
    "addon": {"plugin": "addon", "addon": "cni"},
}
BALANCERS: dict[str, dict[str, Any]] = {
    "none": {},
    "node-local": {"load_balancer": {"kind": "node-local"}},
    "nginx-keepalived": {
        "endpoint": "192.0.2.100:8443",
        "load_balancer": {"kind": "nginx-keepalived", "interface": "eth0"},
    },
    "external": {"endpoint": "api.example:6443", "load_balancer": {"kind": "external"}},
}
PLAIN_PORTS = {"insecure-port", "port"}
"""Deprecated flags that must still be set: without a 0 the port is open to everybody."""

SCHEDULER_APIS = ("v1alpha1", "v1alpha2", "v1beta1", "v1beta2", "v1beta3", "v1")


def make_cluster(
    minor: str, runtime: dict[str, Any], network: str, proxy_mode: str, balancer: str
) -> Cluster:
    images = [("registry.k8s.io/pause:1", "pause"), ("registry.k8s.io/coredns:1", "coredns"),
              ("registry.k8s.io/metrics-server:1", "metrics-server"), ("nginx:1", "verify")]  # fmt: skip
    return Cluster.model_validate(
        {
            "apiVersion": "bundler/v1alpha1",
            "name": "every",
            "kubernetes": {"version": f"{minor}.9"},
            "runtime": runtime,
            "network": {**NETWORKS[network], "proxy_mode": proxy_mode},
            "addons": [{"name": "cni", "manifests": "cni.yaml"}] if network == "addon" else [],
            "metrics_server": {},
            "control_plane": BALANCERS[balancer],
            "nodes": [
                {
                    "name": "one",
                    "address": "192.0.2.1",
                    "roles": [
                        "etcd",
                        "control-plane",
                        "worker",
                        *(["load-balancer"] if balancer == "nginx-keepalived" else []),
                    ],
                }
            ],
            "images": [
                {"ref": ref, "file": str(IMAGES / f"{use}.tar"), "use": use} for ref, use in images
            ],
        }
    )


IMAGES = Path("/nonexistent")


def list_runtimes(minor: str) -> Iterator[dict[str, Any]]:
    yield {"engine": "containerd"}
    if RUNTIMES["docker"].holds_for(minor):
        yield {"engine": "docker"}
    else:
        yield {"engine": "docker", "cri_dockerd": "0.3.20"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    for use, ref in {"pause": "registry.k8s.io/pause:1", "coredns": "registry.k8s.io/coredns:1",
                     "metrics-server": "registry.k8s.io/metrics-server:1", "verify": "nginx:1"}.items():  # fmt: skip
        write_archive(directory / f"{use}.tar", ref)
    return directory


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ClusterPlan], Pki]:
    """One PKI for each set of certificates; their content does not matter here."""
    root = tmp_path_factory.mktemp("states")

    made: dict[frozenset[str], Pki] = {}

    def find(plan: ClusterPlan) -> Pki:
        key = plan.features & {"flannel-kubernetes", "flannel-etcd", "kube-proxy"}
        if key not in made:
            with open_state(root / "-".join(("state", *sorted(key))), create=True) as state:
                made[key] = ensure_pki(state, plan, datetime.now(UTC))
        return made[key]

    return find


@pytest.fixture
def render(
    archives: Path, pki: Callable[[ClusterPlan], Pki], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Cluster], dict[str, str]]:
    """The text files of the only node, by path."""

    def run(cluster: Cluster) -> dict[str, str]:
        plan = make_plan(cluster)
        secrets = Secrets(
            state_id="0" * 64,
            pod_subnets={},
            pki=pki(plan),
            tokens=make_tokens("one"),
            encryption_keys=(EncryptionKey(name="key1", secret="x" * 44),),
            initial_etcd_members=("one",),
        )
        tree = render_node(plan, plan.nodes[0], secrets)
        return {
            file.path: file.content.decode() for file in tree if isinstance(file.content, bytes)
        }

    monkeypatch.setattr(f"{__name__}.IMAGES", archives)
    return run


def list_leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from list_leaves(inner, (*path, str(key)))
    else:
        yield path


def list_choices(minor: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Runtime, network and proxy mode."""
    modes = [mode for mode, span in PROXY_MODES.items() if span.holds_for(minor)]
    own = [network for network in NETWORKS if network != "addon"]
    yield from itertools.product(list_runtimes(minor), own, modes)
    yield from itertools.product(list_runtimes(minor), ("addon",), ("none",))


def is_allowed(cluster: Cluster) -> bool:
    """Whether the choice is valid; only flannel with store etcd may be refused."""
    errors = [problem for problem in check_cluster(cluster) if problem.is_error]
    if errors:
        assert cluster.network.plugin == "flannel", errors
        assert cluster.network.flannel.store == "etcd", errors
    return not errors


@pytest.mark.slow
@pytest.mark.parametrize("minor", MINORS)
def test_the_programs_of_the_minor_accept_everything_rendered(
    render: Callable[[Cluster], dict[str, str]], minor: str
) -> None:
    balancers = itertools.cycle(BALANCERS)
    for _ in range(
        MINORS.index(minor)
    ):  # so that each is combined with every other choice in some minor
        next(balancers)
    tried = set()
    for runtime, network, mode in list_choices(minor):
        cluster = make_cluster(minor, runtime, network, mode, balancer := next(balancers))
        if not is_allowed(cluster):
            continue
        tried.add(balancer)
        files = render(cluster)
        for program in list_programs(cluster, PROGRAMS):
            check_flags(program, read_flags(files, program), minor)
        for program in list_programs(cluster, CONFIGS):
            check_fields(program, read_documents(files[CONFIGS[program]])[0], minor)
        check_manifests(files, minor, list_programs(cluster, CONFIGS))
    assert tried == set(BALANCERS)


@pytest.mark.parametrize("minor", MINORS)
def test_the_programs_of_the_minor_accept_flags_and_fields_of_every_choice(
    minor: str,
) -> None:
    def render(text: str) -> str:
        return "7" if "{{" in text else text

    tried = 0
    for choice, balancer in itertools.product(list_choices(minor), BALANCERS):
        cluster = make_cluster(minor, *choice, balancer)
        if not is_allowed(cluster):
            continue
        tried += 1
        for program in list_programs(cluster, PROGRAMS):
            lines = make_flags(cluster, program, render)
            flags = dict(line.removeprefix("--").split("=", 1) for line in lines)
            check_flags(program, flags, minor)
        for program in list_programs(cluster, CONFIGS):
            check_fields(program, make_config(cluster, program, render), minor)
    assert tried >= 2 * 2 * 2 * len(BALANCERS)


def list_programs(cluster: Cluster, programs: Iterable[str]) -> list[str]:
    """Those of the programs that the cluster runs."""
    return [
        program
        for program in programs
        if program != "kube-proxy" or cluster.network.proxy_mode != "none"
    ]


def read_flags(files: Mapping[str, str], program: str) -> dict[str, str]:
    """The flags in a program's unit."""
    unit = files[f"rootfs/etc/systemd/system/{program}.service"]
    lines = [line.strip(" \\") for line in unit.splitlines() if line.startswith("    --")]
    return dict(line.removeprefix("--").split("=", 1) for line in lines)


@cache
def read_documents(text: str) -> list[Any]:
    """Every YAML document that is not empty; most files are the same in many bundles."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document]


def check_flags(program: str, flags: Mapping[str, str], minor: str) -> None:
    assert flags
    assert set(flags) <= accepted_flags(program, minor), f"{program} {minor}"
    for flag, successor in deprecated_flags(program, minor).items():
        is_closed = flag in PLAIN_PORTS and flags.get(flag) == "0"
        assert flag not in flags or is_closed, f"{program} {minor}: --{flag}: use {successor}"


def check_fields(program: str, document: dict[str, Any], minor: str) -> None:
    api = ""
    if program == "kube-scheduler":
        group, _, api = document["apiVersion"].rpartition("/")
        served = {name.rpartition("/") for name, _ in served_apis(minor)}
        assert api == max((v for g, _, v in served if g == group), key=SCHEDULER_APIS.index)
    known = accepted_fields(program, minor, api)
    assert len(known) > 10
    for leaf in list_leaves(document):
        assert is_accepted_field(known, leaf), f"{program} {minor}: {'.'.join(leaf)}"
    assert list(check_types(document, field_types(program, minor, api))) == []
    check_gates(document.get("featureGates", {}), minor)


def check_gates(gates: Mapping[str, bool], minor: str) -> None:
    known = known_gates(minor)
    for name, value in gates.items():
        gate = known[name]
        is_locked = bool(gate.locked) and is_within(gate.locked, None, minor)
        assert not is_locked or str(value).lower() == gate.value, f"{name} {minor}"


def read_variable(files: Mapping[str, str], word: str) -> str:
    """The value that node.env gives a variable; other words are themselves."""
    found = re.search(rf"^{re.escape(word[1:])}='(.*)'$", files["node.env"], re.MULTILINE)
    return found[1] if word.startswith("$") and found else word


def check_manifests(files: Mapping[str, str], minor: str, programs: list[str]) -> None:
    """Check every file that the API server or a program reads, and manifests inside scripts."""
    found = set()
    for path, text in files.items():
        is_file = path.startswith("rootfs/etc/kubernetes/") and path.endswith((".yaml", ".yml"))
        if path.startswith("rootfs/etc/kubernetes/addons/") and minor in list_schemas():
            check_schemas(text, minor)
        for api, kind in list_kinds(read_documents(text)) if is_file else MANIFEST.findall(text):
            if (api, kind) != ("v1", "Config"):  # kubeconfig
                assert (read_variable(files, api), kind) in served_apis(minor), path
            found.add(kind)
    assert {"Policy", "EncryptionConfiguration", "Deployment", "APIService", "Secret"} <= found
    assert {"KubeletConfiguration", "DaemonSet"} <= found
    assert ("KubeProxyConfiguration" in found) is ("kube-proxy" in programs)


MANIFEST = re.compile(r"^apiVersion: (\S+)\nkind: (\S+)$", re.MULTILINE)


def list_kinds(documents: list[Any]) -> Iterator[tuple[str, str]]:
    for document in documents:
        assert "apiVersion" in document, document
        yield document["apiVersion"], document["kind"]
        if document["kind"] == "List":
            yield from list_kinds(document["items"])


@cache
def list_schemas() -> frozenset[str]:
    import kubernetes_validate  # jsonschema takes 3 s, in every process that collects

    versions = kubernetes_validate.utils.all_versions()
    return frozenset(version.rpartition(".")[0] for version in versions)


@cache
def check_schemas(text: str, minor: str) -> None:
    import kubernetes_validate  # as above

    for document in read_documents(text):
        kubernetes_validate.validate(document, f"{minor}.0", strict=True)


def test_the_aggregated_api_has_no_field_that_1_14_does_not_know(
    render: Callable[[Cluster], dict[str, str]],
) -> None:
    """1.15 added `port` to apiregistration's ServiceReference; the schemas here start later."""
    files = render(make_cluster("1.14", {"engine": "containerd"}, "static", "ipvs", "none"))
    documents = read_documents(files["rootfs/etc/kubernetes/addons/metrics-server.yaml"])
    services = [d["spec"]["service"] for d in documents if d["kind"] == "APIService"]
    assert services == [{"name": "metrics-server", "namespace": "kube-system"}]


@pytest.mark.parametrize("version", ["3.3.13", "3.4.23", "3.5.21", "3.6.8", "3.7.2"])
def test_etcd_accepts_every_flag_in_its_own_minor(
    render: Callable[[Cluster], dict[str, str]], version: str
) -> None:
    network = "static" if version.startswith(("3.6", "3.7")) else "flannel-etcd"
    cluster = make_cluster("1.20", {"engine": "docker"}, network, "ipvs", "none")
    etcd = cluster.etcd.model_copy(update={"version": version, "wal_dir": "/data/wal"})
    flags = read_flags(render(cluster.model_copy(update={"etcd": etcd})), "etcd")
    assert {"data-dir", "wal-dir"} <= set(flags)
    assert set(flags) <= accepted_flags("etcd", version.rpartition(".")[0])


@pytest.mark.parametrize("minor", MINORS)
def test_cri_dockerd_streams_without_websockets_where_the_kubelet_would_use_them(
    minor: str,
) -> None:
    """Cri-dockerd's issues 560 and 569: otherwise kubectl exec and attach fail from 1.36 on."""
    has_gate = "ExtendWebSocketsToKubelet" in known_gates(minor)
    assert has_gate == (minor in {"1.36", "1.37"})
    for runtime in list_runtimes(minor):
        cluster = make_cluster(minor, runtime, "static", "iptables", "none")
        config = make_config(cluster, "kubelet", lambda text: "7" if "{{" in text else text)
        needs_gate = has_gate and "cri_dockerd" in runtime
        found = config.get("featureGates", {}).get("ExtendWebSocketsToKubelet")
        assert found == (False if needs_gate else None)


@pytest.mark.parametrize("minor", MINORS)
def test_pods_have_a_seccomp_profile_wherever_the_kubelet_can_set_one(minor: str) -> None:
    """The gate is off by default from 1.22 to 1.24, and gone from 1.30 on."""
    cluster = make_cluster(minor, {"engine": "containerd"}, "static", "iptables", "none")
    config = make_config(cluster, "kubelet", lambda text: "7" if "{{" in text else text)
    can = "seccompDefault" in accepted_fields("kubelet", minor)
    assert can == (key_of(minor) >= (1, 22))
    assert config.get("seccompDefault") == (True if can else None)
    gate = config.get("featureGates", {}).get("SeccompDefault")
    assert gate == (True if minor in {"1.22", "1.23", "1.24"} else None)


@pytest.mark.parametrize("minor", MINORS)
def test_kubelets_bound_processes_and_idle_streams_at_every_minor(minor: str) -> None:
    cluster = make_cluster(minor, {"engine": "containerd"}, "static", "iptables", "none")
    config = make_config(cluster, "kubelet", lambda text: "7" if "{{" in text else text)
    assert config["protectKernelDefaults"] is True
    assert config["streamingConnectionIdleTimeout"] == "30m"
    assert config["podPidsLimit"] == 4096


@pytest.mark.parametrize("minor", MINORS)
def test_tokens_of_pods_are_not_extended_wherever_the_api_server_can_tell(minor: str) -> None:
    cluster = make_cluster(minor, {"engine": "containerd"}, "static", "iptables", "none")
    flags = make_flags(cluster, "kube-apiserver", lambda text: "7" if "{{" in text else text)
    assert ("--service-account-extend-token-expiration=false" in flags) == (
        "service-account-extend-token-expiration" in accepted_flags("kube-apiserver", minor)
    )
    assert "--audit-log-maxage=30" in flags


@pytest.mark.parametrize("minor", MINORS)
def test_the_kubelet_limits_its_events_at_every_minor(minor: str) -> None:
    """0 was the default, 50, before 1.37; since then it means that there is no limit."""
    cluster = make_cluster(minor, {"engine": "containerd"}, "static", "iptables", "none")
    config = make_config(cluster, "kubelet", lambda text: "7" if "{{" in text else text)
    assert config["eventRecordQPS"] == 50


def test_deprecated_flags_and_their_successors_exist() -> None:
    for row in read_table("deprecated-flags.tsv"):
        program, since = row["component"], row["since"]
        assert row["flag"] in accepted_flags(program, since), row
        owner, dashes, name = row["successor"].rpartition("--")
        if dashes:
            assert name in accepted_flags(owner.strip() or program, since), row
        else:
            known = [accepted_fields(program, since, api) for api in ("", *SCHEDULER_APIS)]
            assert any(is_accepted_field(fields, tuple(name.split("."))) for fields in known), row


def test_a_removed_name_does_not_return_in_a_later_minor() -> None:
    """The message `A to B have it` relies on this."""
    for table, keys in {
        "accepted-flags.tsv": ("component", "flag"),
        "accepted-fields.tsv": ("component", "api", "field"),
        "feature-gates.tsv": ("gate",),
        "apis.tsv": ("api", "kind"),
    }.items():
        ended: dict[tuple[str, ...], str] = {}  # only another type starts where one ends
        for row in read_table(table):
            name = tuple(row[key] for key in keys)
            assert ended.get(name, row["since"]) == row["since"], f"{table}: {name}"
            ended[name] = row["until"]


def test_the_tables_have_rows_for_every_minor() -> None:
    for minor in MINORS:
        assert len(known_gates(minor)) > 50
        assert len(served_apis(minor)) > 40
        for program in PROGRAMS:
            assert len(accepted_flags(program, minor)) > 20
            rows = [row for row in list_flags(program) if row.holds_for(minor)]
            assert {row.flag for row in rows} <= accepted_flags(program, minor)
