"""What each credential in a worker's bundle can do: real requests to a real API server, compared with tables.

worker_rights.tsv has the requests, worker_rules.tsv all rules that RBAC gives to each credential.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.external_ca_cluster import find_programs
from support.join_cluster import (
    CSRS,
    Build,
    Builder,
    Client,
    make_client_request,
    run_control_plane,
)
from support.networks import take_network

TABLES = Path(__file__).parent
FORBIDDEN = 403
WRONG = {400, 401, 404, 405, 415}
"""The request itself is wrong, so it shows nothing about rights."""
SECRET = re.compile(
    r"PRIVATE KEY|client-key|\btoken\b|password|(?<![A-Za-z0-9])[a-z0-9]{6}\.[a-z0-9]{16}(?![a-z0-9])"
)
"""What marks a file as a credential, whatever its name."""

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
CREDENTIALS = {
    "etc/kubernetes/bootstrap.kubeconfig": "token",
    "etc/kubernetes/kube-proxy.kubeconfig": "kube-proxy",
    "etc/kubernetes/flannel.kubeconfig": "kubelet",
}
"""The files of a worker's bundle that are credentials, and the column of the tables."""


@dataclass
class Site:
    """A cluster whose workers w1 and w2 have joined, and the credentials of w1; w3 has not joined."""

    build: Build
    plugin: str
    admin: Client
    clients: dict[str, Client]
    bodies: dict[str, Any]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_programs(tmp_path_factory.mktemp("programs") / "bin")


@pytest.fixture(scope="module", params=["flannel", pytest.param("static", marks=pytest.mark.long)])
def site(
    request: pytest.FixtureRequest, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    plugin, network = request.param, take_network()
    more = {"network": {"plugin": plugin}}
    place = tmp_path_factory.mktemp(plugin)
    build = Builder(place, network, programs, ("w1", "w2", "w3"), more).build()
    with run_control_plane(build):
        kubelets = {name: build.join(name) for name in ("w1", "w2")}
        admin = Client.read(build.root("cp1") / "etc/kubernetes/admin.kubeconfig")
        fill(admin, kubelets)
        clients = {
            "token": build.thief("w3"),  # tokens of hosts that have joined are deleted
            "kube-proxy": Client.read(build.root("w1") / "etc/kubernetes/kube-proxy.kubeconfig"),
            "kubelet": kubelets["w1"],
        }
        yield Site(build, plugin, admin, clients, make_bodies(admin))


def create(client: Client, path: str, body: Any) -> None:
    answer = client.send("POST", path, body)
    assert answer.status == 201, answer


def make_node(name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def make_pod(name: str, node: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
    }


def fill(admin: Client, kubelets: dict[str, Client]) -> None:
    """Pods default/here on w1 and default/there on w2 with what they use, Leases, and a request."""
    space = "/api/v1/namespaces/default"
    for name, node in (("here", "w1"), ("there", "w2")):
        named = {"metadata": {"name": name}}
        create(admin, f"{space}/serviceaccounts", named)
        create(admin, f"{space}/secrets", named)
        create(admin, f"{space}/configmaps", named)
        pod = make_pod(name, node)
        pod["spec"]["serviceAccountName"] = name
        pod["spec"]["automountServiceAccountToken"] = False
        pod["spec"]["volumes"] = [
            {"name": "secret", "secret": {"secretName": name}},
            {"name": "configmap", "configMap": {"name": name}},
        ]
        create(admin, f"{space}/pods", pod)
        lease = {"metadata": {"name": node}, "spec": {"holderIdentity": node}}
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        create(kubelets[node], leases, lease)
    # the only controller manager elects no leader
    lease = {"metadata": {"name": "kube-controller-manager"}, "spec": {"holderIdentity": "cp1"}}
    create(admin, leases.replace("kube-node-lease", "kube-system"), lease)
    labels = {"node-restriction.kubernetes.io/zone": "a"}
    taint = {"key": "quarantine", "effect": "NoSchedule"}
    mark = {"metadata": {"labels": labels}, "spec": {"taints": [taint]}}
    assert admin.send("PATCH", "/api/v1/nodes/w1", mark, "merge-patch+json").status == 200
    # no approver approves it
    asked = kubelets["w2"].request("other", make_client_request("w2"), usages=("server auth",))
    assert asked.status == 201, asked


def make_bodies(admin: Client) -> dict[str, Any]:
    """The bodies that the table names with @."""

    def read(path: str) -> dict[str, Any]:
        return admin.send("GET", path).body

    def make_mirror(node: str) -> dict[str, Any]:
        uid = read(f"/api/v1/nodes/{node}")["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
        annotations = {"kubernetes.io/config.mirror": "a"}
        return make_pod("mirror", node, annotations=annotations, ownerReferences=[owner])

    def make_token_request(pod: str | None) -> dict[str, Any]:
        spec: dict[str, Any] = {"audiences": []}
        if pod:
            uid = read(f"/api/v1/namespaces/default/pods/{pod}")["metadata"]["uid"]
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        return {"spec": spec}

    csr = read(f"{CSRS}/other")
    approved = {"type": "Approved", "status": "True", "reason": "a", "message": "a"}
    attributes = {"verb": "get", "resource": "secrets", "namespace": "default"}
    review = {"spec": {"user": "a", "resourceAttributes": attributes}}
    everything = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}  # fmt: skip
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}
    return {
        "node-w3": make_node("w3"),
        "eviction-here": {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "here"}},
        "eviction-there": {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "there"}},
        "mirror-pod-w1": make_mirror("w1"),
        "mirror-pod-w2": make_mirror("w2"),
        "pod-w1": make_pod("free", "w1"),
        "binding-there": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "there"}, "target": {"kind": "Node", "name": "w1"}},
        "secret": {"metadata": {"name": "a"}},
        "bootstrap-token": {
            "metadata": {"name": "bootstrap-token-abcdef"},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"},
        },
        "token-for-here": make_token_request("here"),
        "token-for-there": make_token_request("there"),
        "token-for-nobody": make_token_request(None),
        "csr": {**csr, "metadata": {"name": "another"}, "status": {}},
        "approval": {**csr, "status": {"conditions": [approved]}},
        "token-review": {"spec": {"token": "a"}},
        "access-review": review,
        "local-access-review": {"metadata": {"namespace": "default"}, **review},
        "binding-of-all-rights": {"metadata": {"name": "a"}, "roleRef": everything, "subjects": [group]},
        "event": {"metadata": {"name": "a"}, "involvedObject": {"namespace": "default"}},
        "namespace": {"metadata": {"name": "a"}},
    }  # fmt: skip


def read_table(name: str) -> list[list[str]]:
    """The rows below the line of column names, without comments."""
    lines = (TABLES / name).read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return rows[1:]


def test_no_file_of_a_workers_bundle_is_a_credential_that_has_no_column(site: Site) -> None:
    tree = site.build.root("w3").parent  # of which nobody has run anything yet
    found = {
        path.relative_to(tree).as_posix()
        for path in tree.rglob("*")
        if path.is_file() and SECRET.search(path.read_text(errors="replace"))
    }
    scripts = {path for path in found if path.startswith("lib/") or path.endswith(".sh")}
    scripts.add("MANIFEST")  # names of scripts, such as token-keys.awk
    absent = set() if site.plugin == "flannel" else {"etc/kubernetes/flannel.kubeconfig"}
    assert found - scripts == {f"rootfs/{path}" for path in CREDENTIALS.keys() - absent}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=" ".join(row[1:])[:90]) for row in read_table("worker_rights.tsv")],
)
def test_a_request_is_allowed_to_those_in_the_table(site: Site, row: list[str]) -> None:
    may, method, path, *more = row
    body = more[0] if more else ""
    sent = site.bodies[body[1:]] if body.startswith("@") else json.loads(body or "null")
    if method != "GET":
        path += ("&" if "?" in path else "?") + "dryRun=All"
    kind = "merge-patch+json" if method == "PATCH" else "json"
    answers = {name: client.send(method, path, sent, kind) for name, client in site.clients.items()}
    assert not {one.status for one in answers.values()} & WRONG, answers
    allowed = {name for name, one in answers.items() if one.status != FORBIDDEN}
    assert allowed == set(may.split()) - {"-"}, answers


def list_rules(client: Client) -> set[tuple[str, str]]:
    """(verbs, what) of each rule that RBAC has for the client; `in NAMESPACE` if only there."""
    found = {name: list_rules_in(client, name) for name in NAMESPACES}
    everywhere = set.intersection(*found.values())
    return everywhere | {
        (verbs, f"{what} in {name}")
        for name, rules in found.items()
        for verbs, what in rules - everywhere
    }


def list_rules_in(client: Client, namespace: str) -> set[tuple[str, str]]:
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = client.send("POST", path, {"spec": {"namespace": namespace}})
    assert answer.status == 201, answer
    found = set()
    for rule in answer.body["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                what = f"{resource}.{group}" if group else resource
                names = " ".join(sorted(rule.get("resourceNames", [])))
                found.add((" ".join(sorted(rule["verbs"])), f"{what} {names}".strip()))
    for rule in answer.body["status"]["nonResourceRules"]:
        found |= {(" ".join(sorted(rule["verbs"])), url) for url in rule["nonResourceURLs"]}
    return found


@pytest.mark.parametrize("name", ["token", "kubelet", "kube-proxy"])
def test_rbac_gives_a_credential_no_rule_that_is_not_in_the_table(site: Site, name: str) -> None:
    rows = [
        (verbs, what)
        for who, verbs, what in read_table("worker_rules.tsv")
        if {name, "everybody", f"{name}/{site.plugin}"} & set(who.split())
    ]
    assert sorted(list_rules(site.clients[name])) == sorted(rows)
