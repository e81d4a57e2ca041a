"""Choices of cluster.yaml: networks, runtimes, DNS, registries; and combinations that fail."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.descriptions import write_archive

from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError
from bundler.formats.shell_settings import read_settings
from bundler.pipeline import render
from bundler.project import Inputs

BASE = """\
apiVersion: bundler/v1alpha1
name: choices
kubernetes: {version: 1.28.3}
runtime: {engine: containerd}
dns: {provider: none}
nodes:
  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}
  - {name: two, address: 192.0.2.2, roles: [worker]}
images:
  - {ref: "registry.k8s.io/pause:3.9", file: pause.tar}
  - {ref: "registry.k8s.io/coredns/coredns:v1.10.1", file: coredns.tar}
  - {ref: "nginx:1", file: nginx.tar, use: verify}
"""
Render = Callable[[str], Path]


@pytest.fixture
def describe(tmp_path: Path) -> Callable[..., Path]:
    """Write BASE with lines replaced, and return its path."""
    for name, ref in {
        "pause": "registry.k8s.io/pause:3.9",
        "coredns": "registry.k8s.io/coredns/coredns:v1.10.1",
        "nginx": "nginx:1",
    }.items():
        write_archive(tmp_path / f"{name}.tar", ref)

    (tmp_path / "both.pem").write_text(
        "".join(
            f"-----BEGIN {w}-----\nx\n-----END {w}-----\n" for w in ("CERTIFICATE", "PRIVATE KEY")
        )
    )

    def write(*replacements: tuple[str, str]) -> Path:
        text = BASE
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def trees(tmp_path: Path, describe: Callable[..., Path]) -> Callable[..., Path]:
    """Render the text trees of a cluster.yaml."""

    def run(*replacements: tuple[str, str]) -> Path:
        inputs = Inputs(description=describe(*replacements), cache=Cache(tmp_path / "cache"))
        render(inputs, tmp_path / "trees", text_only=True)
        return tmp_path / "trees"

    return run


RUNTIME = "runtime: {engine: containerd}"
MINOR = "version: 1.28.3"


@pytest.mark.parametrize(
    ("replacements", "expected"),
    [
        ([(RUNTIME, "runtime: {engine: docker}")], r"docker works before Kubernetes 1.24, not with 1.28: use containerd, or add runtime.cri_dockerd"),
        ([(RUNTIME, "runtime: {engine: docker, cri_dockerd: 0.3.20}"), (MINOR, "version: 1.20.2")], r"uses Docker without cri-dockerd: remove this key"),
        ([(RUNTIME, "runtime: {engine: containerd, version: 1.5.9}")], r"needs CRI v1, which containerd 1.5.9 does not have"),
        ([(RUNTIME, "runtime: {engine: containerd, version: 1.3.9}")], r"containerd 1.3.9 is too old"),
        ([(MINOR, "version: 1.20.2"), ("dns: {provider: none}", "dns: {version: 1.11.0}")], r"dns.version: CoreDNS 1.11.0 needs Kubernetes 1.21 or newer, and 1.20 would wait for it without end: use 1.7.0"),
        ([("dns: {provider: none}", "dns: {provider: none}\nnetwork: {proxy_mode: nftables}")], r"nftables works from Kubernetes 1.31, not with 1.28: use ipvs or iptables"),
        ([("dns: {provider: none}", "dns: {provider: none}\nnetwork: {flannel: {backend: vxlan}}")], r"network.plugin is static: set `plugin: flannel`"),
        ([("dns: {provider: none}", "dns: {provider: none}\nnetwork: {plugin: flannel, flannel: {store: etcd}}")], r"store etcd works only with Docker through dockershim"),
        ([(RUNTIME, "runtime: {engine: docker}"), (MINOR, "version: 1.20.2"), ("dns: {provider: none}", "dns: {provider: none}\netcd: {version: 3.6.4}\nnetwork: {plugin: flannel, flannel: {store: etcd}}")], r"etcd 3.6.4 no longer has the v2 API: use `store: kubernetes` or etcd 3.4"),
        ([(RUNTIME, "runtime: {engine: docker}"), (MINOR, "version: 1.20.2"), ("dns: {provider: none}", "dns: {provider: none}\nnetwork: {plugin: flannel, flannel: {store: etcd, version: 0.22.1}}")], r"flannel 0.22.1 cannot use etcd's v2 API"),
        ([("dns: {provider: none}", "dns: {provider: none}\nnetwork: {plugin: flannel, flannel: {version: 0.13.0}}")], r"flannel 0.13.0 does not reload the kubelet's certificate, .*: use 0.14 or later"),
        ([(RUNTIME, "runtime: {engine: containerd, registries: [{host: r.example, ca: nginx.tar}]}")], r"nginx.tar: must be a PEM file with certificates only"),
        ([(RUNTIME, "runtime: {engine: containerd, registries: [{host: r.example, ca: both.pem}]}")], r"both.pem: must be a PEM file with certificates only"),
        ([(RUNTIME, "runtime: {engine: containerd, registries: [{host: r.example, mirrors: ['https://bob:word@m.example']}]}")], r"must have no name and password"),
        ([(RUNTIME, "runtime: {engine: docker, cri_dockerd: 0.3.20, registry_mirrors: ['https://bob:word@m.example']}")], r"must have no name and password"),
        ([(RUNTIME, "runtime: {engine: containerd, registries: [{host: r.example}, {host: r.example}]}")], r"r.example is listed twice"),
        ([('nginx:1"', 'registry.k8s.io/pause:3.10"'), ("file: nginx.tar, use: verify", "use: pause")], r"needs exactly one pause image, found 2: .* registry.k8s.io/pause:3.9"),
        ([("address: 192.0.2.2,", 'address: "2001:db8::2",')], r"nodes\[1\].address: IPv6 and dual-stack are not supported: give an IPv4 address"),
        ([("dns: {provider: none}", 'dns: {provider: none}\nnetwork: {pod_cidr: "fd00::/48"}')], r"network.pod_cidr: IPv6 and dual-stack are not supported"),
        ([("dns: {provider: none}", 'dns: {provider: none}\ncontrol_plane: {endpoint: "[fd00::1]:6443"}')], r"control_plane.endpoint: IPv6 and dual-stack are not supported"),
        ([(RUNTIME, "etcd: {data_dir: relative}\n" + RUNTIME)], r"etcd.data_dir: must be an absolute path"),
        ([("dns: {provider: none}", "dns: {provider: none}\nextra: {containerd: {config: {plugins: {io.containerd.grpc.v1.cri: {containerd: {runtimes: {runc: {options: {SystemdCgroup: true}}}}}}}}}")], r"SystemdCgroup: bundler sets this itself"),
        ([("dns: {provider: none}", "dns: {provider: none}\nextra: {flanneld: {flags: {v: 5}}}")], r"the cluster does not use flanneld: remove this key"),
        ([("dns: {provider: none}", "dns: {provider: none}\nextra: {kube-router: {flags: {v: 5}}}")], r"the cluster does not use kube-router: remove this key"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_an_invalid_combination_is_refused_with_the_alternative(
    describe: Callable[..., Path], replacements: list[tuple[str, str]], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_cluster(describe(*replacements))


def test_ipvs_is_deprecated_with_a_warning(describe: Callable[..., Path]) -> None:
    path = describe(
        (MINOR, "version: 1.36.2"), ("dns: {provider: none}", "network: {proxy_mode: ipvs}")
    )
    warning = next(w for w in load_cluster(path).warnings if "ipvs is deprecated" in w)
    assert "from Kubernetes 1.35: use network.proxy_mode nftables (Linux 5.13 and" in warning
    assert "kube-proxy warns from 1.37 on, has ipvs off by default from 1.40 on" in warning


def load_documents(path: Path) -> dict[str, dict[str, Any]]:
    return {d["kind"]: d for d in yaml.safe_load_all(path.read_text()) if d}


def test_coredns_has_the_address_that_kubelets_give_to_pods(trees: Callable[..., Path]) -> None:
    root = trees(("dns: {provider: none}", "dns: {upstream: [192.0.2.53, 192.0.2.54]}")) / "one"
    addons = load_documents(root / "rootfs/etc/kubernetes/addons/coredns.yaml")
    kubelet = yaml.safe_load((root / "rootfs/etc/kubernetes/kubelet-config.yaml").read_text())
    assert kubelet["clusterDNS"] == [addons["Service"]["spec"]["clusterIP"]] == ["10.254.0.2"]
    corefile = addons["ConfigMap"]["data"]["Corefile"]
    assert "kubernetes cluster.local in-addr.arpa" in corefile
    assert "forward . 192.0.2.53 192.0.2.54" in corefile
    assert "ready :8181" in corefile
    pod = addons["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.k8s.io/coredns/coredns:v1.10.1"
    assert "requiredDuringSchedulingIgnoredDuringExecution" in pod["affinity"]["podAntiAffinity"]


@pytest.mark.parametrize(
    ("version", "field", "annotation"),
    [("1.14.10", None, "runtime/default"), ("1.20.2", {"type": "RuntimeDefault"}, None)],
)
def test_add_ons_have_a_seccomp_profile_and_no_capability_to_spare(
    trees: Callable[..., Path], version: str, field: object, annotation: str | None
) -> None:
    dns = "dns: {version: 1.6.7, replicas: 1}\nmetrics_server: {}"
    root = trees(("dns: {provider: none}", dns), (MINOR, f"version: {version}")) / "one"
    for name, added in (("coredns", ["NET_BIND_SERVICE"]), ("metrics-server", None)):
        addons = load_documents(root / f"rootfs/etc/kubernetes/addons/{name}.yaml")
        template = addons["Deployment"]["spec"]["template"]
        key = "seccomp.security.alpha.kubernetes.io/pod"
        assert template["metadata"].get("annotations", {}).get(key) == annotation
        assert template["spec"].get("securityContext", {}).get("seccompProfile") == field
        (container,) = template["spec"]["containers"]
        capabilities = container["securityContext"]["capabilities"]
        assert (capabilities["drop"], capabilities.get("add")) == (["ALL"], added)


def test_an_old_coredns_has_no_readiness_plugin(trees: Callable[..., Path]) -> None:
    root = trees(
        ("dns: {provider: none}", "dns: {version: 1.3.1, upstream: [], replicas: 3}"),
        (MINOR, "version: 1.14.10"),
    )
    addons = load_documents(root / "one/rootfs/etc/kubernetes/addons/coredns.yaml")
    corefile = addons["ConfigMap"]["data"]["Corefile"]
    assert "ready" not in corefile
    assert "forward" not in corefile
    pod = addons["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/health"
    assert "preferredDuringSchedulingIgnoredDuringExecution" in pod["affinity"]["podAntiAffinity"]


def test_flannel_takes_subnets_from_node_objects(trees: Callable[..., Path]) -> None:
    root = trees(("dns: {provider: none}", "network: {plugin: flannel}"))
    manager = (root / "one/rootfs/etc/systemd/system/kube-controller-manager.service").read_text()
    assert "--allocate-node-cidrs=true" in manager
    assert "--node-cidr-mask-size=24" in manager
    unit = (root / "two/rootfs/etc/systemd/system/flannel.service").read_text()
    assert "--kube-subnet-mgr=true" in unit
    assert "Environment=NODE_NAME=two" in unit
    assert "etcd" not in unit
    assert not (root / "two/rootfs/etc/systemd/system/kube-pod-routes.service").exists()
    assert not list((root / "two/rootfs/etc/cni/net.d").glob("*"))
    assert (root / "one/rootfs/etc/kubernetes/addons/flannel.yaml").exists()


def test_flannel_acts_as_its_node_with_the_certificate_of_the_kubelet(
    trees: Callable[..., Path],
) -> None:
    root = trees(
        ("dns: {provider: none}", "network: {plugin: flannel}"),
        (MINOR, f"{MINOR}, kubelet_root: /data/kubelet"),
    )
    two = root / "two/rootfs"
    kubeconfig = yaml.safe_load((two / "etc/kubernetes/flannel.kubeconfig").read_text())
    current = "/data/kubelet/pki/kubelet-client-current.pem"
    assert kubeconfig["users"] == [
        {
            "name": "system:node:two",
            "user": {"client-certificate": current, "client-key": current},
        }
    ]
    unit = (two / "etc/systemd/system/flannel.service").read_text()
    assert f"ExecStartPre=/bin/sh -c 'until [ -f \"$$0\" ]; do sleep 1; done' {current}\n" in unit
    units = read_settings((root / "two/node.env").read_text())["UNITS"].split()
    assert units.index("kubelet.service") < units.index("flannel.service")


def test_kube_router_and_its_guard_are_on_workers_and_its_rights_on_control_planes(
    trees: Callable[..., Path],
) -> None:
    pin = f"artifacts: {{kube-router: {{sha256: {'a' * 64}}}}}"
    policy = "network: {policy: {engine: kube-router, default_deny: [payments, shop]}}"
    root = trees(("dns: {provider: none}", f"dns: {{provider: none}}\n{policy}\n{pin}"))
    unit = (root / "two/rootfs/etc/systemd/system/kube-router.service").read_text()
    for flag in (
        "--run-router=false", "--run-service-proxy=false", "--run-firewall=true", "--health-port=0",
        "--hostname-override=two", "--service-cluster-ip-range=10.254.0.0/16",
    ):  # fmt: skip
        assert f"    {flag}" in unit
    units = read_settings((root / "two/node.env").read_text())["UNITS"].split()
    assert units.index("kube-pod-guard.service") < units.index("kubelet.service")
    assert units.index("kubelet.service") < units.index("kube-router.service")
    kubelet = (root / "two/rootfs/etc/systemd/system/kubelet.service").read_text()
    assert "ExecStartPre=+/opt/k8s/libexec/pod-guard.sh up\n" in kubelet
    kubeconfig = yaml.safe_load(
        (root / "two/rootfs/etc/kubernetes/kube-router.kubeconfig").read_text()
    )
    assert kubeconfig["users"][0]["name"] == "bundler:kube-router:two"
    addons = root / "one/rootfs/etc/kubernetes/addons"
    denied = list(yaml.safe_load_all((addons / "default-deny.yaml").read_text()))
    assert [(one["kind"], one["metadata"]["name"]) for one in denied] == [
        ("Namespace", "payments"), ("NetworkPolicy", "bundler-default-deny"),
        ("Namespace", "shop"), ("NetworkPolicy", "bundler-default-deny"),
    ]  # fmt: skip
    assert denied[3]["metadata"]["namespace"] == "shop"
    assert denied[3]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (role,) = (
        one for one in yaml.safe_load_all((addons / "kube-router.yaml").read_text())
        if one["kind"] == "ClusterRole"
    )  # fmt: skip
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_without_an_engine_no_node_has_a_file_of_it(trees: Callable[..., Path]) -> None:
    root = trees()
    assert not [
        path for path in root.rglob("*") if "kube-router" in path.name or "guard" in path.name
    ]
    assert "pod-guard" not in (root / "two/rootfs/etc/systemd/system/kubelet.service").read_text()


@pytest.mark.parametrize("workers", [2, 0])
def test_nodes_may_read_exactly_the_planned_workers(
    trees: Callable[..., Path], workers: int
) -> None:
    """A rule with an empty list of names would allow all Nodes."""
    root = trees(
        *([] if workers else [("control-plane, worker]", "control-plane]"), ("[worker]", "[etcd]")])
    )
    addon = (root / "one/rootfs/etc/kubernetes/addons/nodes.yaml").read_text()
    roles = {
        one["metadata"]["name"]: one
        for one in yaml.safe_load_all(addon)
        if one["kind"] == "ClusterRole"
    }
    rules = roles["bundler:planned-nodes"]["rules"] if workers else []
    assert [rule["resourceNames"] for rule in rules] == [["one", "two"]] * bool(workers)
    assert ("bundler:planned-nodes" in addon) is bool(workers)


def test_registries_have_mirrors_and_their_own_ca(
    trees: Callable[..., Path], tmp_path: Path
) -> None:
    ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(ca)
    registries = (
        "[{host: docker.io, mirrors: ['https://mirror.example:5000']},"
        " {host: 'own.example:5000', ca: ca.pem}, {host: lab.example, insecure: true}]"
    )
    root = trees((RUNTIME, f"runtime: {{engine: containerd, registries: {registries}}}"))
    folder = root / "two/rootfs/etc/containerd/certs.d"
    hosts = {
        path.parent.name: tomllib.loads(path.read_text()) for path in folder.rglob("hosts.toml")
    }
    assert hosts["docker.io"]["server"] == "https://registry-1.docker.io"
    assert list(hosts["docker.io"]["host"]) == ["https://mirror.example:5000"]
    own = hosts["own.example:5000"]["host"]["https://own.example:5000"]
    assert own["ca"] == "/etc/containerd/certs.d/own.example:5000/ca.crt"
    assert (folder / "own.example:5000/ca.crt").read_text() == ca
    assert hosts["lab.example"]["host"]["https://lab.example"]["skip_verify"] is True
    config = tomllib.loads((root / "two/rootfs/etc/containerd/config.toml").read_text())
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["registry"]["config_path"] == "/etc/containerd/certs.d"


def test_a_mirror_below_the_path_of_an_api_is_used_as_it_is(trees: Callable[..., Path]) -> None:
    mirrors = [
        "https://harbor.example/v2/hub",
        "https://harbor.example/a/v2/b/",
        "https://plain.example/v2",
        "https://nexus.example/repository/hub",
        "https://root.example",
    ]
    registries = f"[{{host: docker.io, mirrors: {mirrors}}}]"
    root = trees((RUNTIME, f"runtime: {{engine: containerd, registries: {registries}}}"))
    path = root / "two/rootfs/etc/containerd/certs.d/docker.io/hosts.toml"
    hosts = tomllib.loads(path.read_text())["host"]
    assert list(hosts) == mirrors
    assert [host.get("override_path", False) for host in hosts.values()] == [
        True, True, False, False, False,
    ]  # fmt: skip


def registry(host: str, mirror: str, version: str = "1.7.20") -> str:
    return (
        f"runtime: {{engine: containerd, version: {version},"
        f" registries: [{{host: {host}, mirrors: ['{mirror}']}}]}}"
    )


@pytest.mark.parametrize(
    ("runtime", "minor", "message"),
    [
        (
            registry("quay.io", "https://h.example/v2/p", "1.5.18"), "1.24.17",
            "containerd 1.5.18 appends /v2 to the path: use 1.6 or later",
        ),
        (registry("index.docker.io", "https://h.example"), "1.28.3", "write docker.io"),
        (registry("quay.io", "https://h.example/?a=b"), "1.28.3", "must have no \\? and #"),
        (
            "runtime: {engine: docker, registry_mirrors: ['https://h.example/hub']}", "1.20.2",
            "Docker 20.10.23 does not start with a mirror that has a path",
        ),
        (
            "runtime: {engine: docker, version: 25.0.5, registry_mirrors: ['https://h.example/v2/hub']}", "1.20.2",
            "give only the address before it",
        ),
    ],
)  # fmt: skip
def test_a_mirror_that_the_runtime_cannot_use_is_refused(
    describe: Callable[..., Path], runtime: str, minor: str, message: str
) -> None:
    path = describe((RUNTIME, runtime), (MINOR, f"version: {minor}"))
    with pytest.raises(ConfigError, match=message):
        load_cluster(path)


def test_a_mirror_of_docker_hub_below_a_path_needs_docker_25(
    describe: Callable[..., Path],
) -> None:
    runtime = (
        "runtime: {engine: docker, version: 25.0.5, registry_mirrors: ['https://h.example/hub']}"
    )
    path = describe((RUNTIME, runtime), (MINOR, "version: 1.20.2"), ("pause:3.9", "pause:3.2"))
    write_archive(path.parent / "pause.tar", "registry.k8s.io/pause:3.2")
    load_cluster(path)


@pytest.mark.parametrize(("minor", "driver"), [("1.28.3", "cgroupfs"), ("1.36.2", "systemd")])
def test_runtime_and_kubelet_have_the_same_cgroup_driver(
    trees: Callable[..., Path], minor: str, driver: str
) -> None:
    root = trees((MINOR, f"version: {minor}")) / "two" / "rootfs"
    kubelet = yaml.safe_load((root / "etc/kubernetes/kubelet-config.yaml").read_text())
    assert kubelet["cgroupDriver"] == driver
    text = (root / "etc/containerd/config.toml").read_text()
    assert f"SystemdCgroup = {'true' if driver == 'systemd' else 'false'}" in text


def test_docker_works_after_dockershim_with_cri_dockerd(trees: Callable[..., Path]) -> None:
    root = trees((RUNTIME, "runtime: {engine: docker, cri_dockerd: 0.3.20}")) / "two" / "rootfs"
    units = root / "etc/systemd/system"
    assert "--network-plugin=cni" in (units / "cri-dockerd.service").read_text()
    kubelet = (units / "kubelet.service").read_text()
    assert "Requires=docker.service cri-dockerd.service" in kubelet
    config = yaml.safe_load((root / "etc/kubernetes/kubelet-config.yaml").read_text())
    assert config["containerRuntimeEndpoint"] == "unix:///run/cri-dockerd.sock"
    assert "unix:///run/cri-dockerd.sock" in (root / "etc/crictl.yaml").read_text()


@pytest.mark.slow
def test_secrets_are_encrypted_by_the_newer_provider_and_read_by_both(
    trees: Callable[..., Path],
) -> None:
    path = "one/rootfs/etc/kubernetes/encryption-config.yaml"
    old = yaml.safe_load((trees() / path).read_text())
    new = yaml.safe_load((trees((MINOR, "version: 1.36.2")) / path).read_text())
    names = [[next(iter(p)) for p in d["resources"][0]["providers"]] for d in (old, new)]
    assert names == [["aescbc", "secretbox", "identity"], ["secretbox", "aescbc", "identity"]]
    keys = {p[n]["keys"][0]["secret"] for p in new["resources"][0]["providers"]
            for n in p if n != "identity"}  # fmt: skip
    assert keys == {old["resources"][0]["providers"][0]["aescbc"]["keys"][0]["secret"]}


CNI = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cni, namespace: kube-system}\n"


def render_with_addon(trees: Callable[..., Path], folder: Path, mode: str) -> Path:
    """Two hosts whose pod network an add-on makes; the second one is only a worker."""
    (folder / "cni.yaml").write_text(CNI)
    network = f"network: {{plugin: addon, addon: cni, proxy_mode: {mode}}}"
    addons = "addons: [{name: cni, manifests: cni.yaml, wait: {timeout: 7m}}]"
    return trees(("dns: {provider: none}", f"dns: {{provider: none}}\n{network}\n{addons}"))


def test_a_worker_waits_for_the_add_on_that_makes_the_network(
    trees: Callable[..., Path], tmp_path: Path
) -> None:
    root = render_with_addon(trees, tmp_path, "iptables")
    settings = read_settings((root / "two/node.env").read_text())
    assert (settings["NETWORK_ADDON"], settings["ADDONS_WAIT"]) == ("cni", "420")
    assert "kube-proxy.service" in settings["UNITS"]
    assert "kube-pod-routes.service" not in settings["UNITS"]
    assert not (root / "two/rootfs/etc/cni").exists()
    manager = root / "one/rootfs/etc/systemd/system/kube-controller-manager.service"
    assert "--allocate-node-cidrs=true" in manager.read_text()


def test_without_kube_proxy_hosts_have_nothing_of_it(
    trees: Callable[..., Path], tmp_path: Path
) -> None:
    root = render_with_addon(trees, tmp_path, "none")
    for node in ("one", "two"):
        settings = read_settings((root / node / "node.env").read_text())
        assert "kube-proxy.service" not in settings["UNITS"]
        assert not {"10249", "10256"} & {port.split(":")[0] for port in settings["PORTS"].split()}
        assert not list((root / node).rglob("*kube-proxy*"))
    obsolete = (root / "one/rootfs/etc/kubernetes/obsolete-objects").read_text()
    assert "ClusterRoleBinding - bundler:kube-proxies" in obsolete
    applied = root / "one/rootfs/etc/kubernetes/addons"
    assert not any("bundler:kube-proxies" in file.read_text() for file in applied.iterdir())
