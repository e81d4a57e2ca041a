"""Real etcd and Kubernetes: what the bundle of one worker gives its host, and somebody who stole it."""

import base64
import ipaddress
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.external_ca_cluster import find_programs
from support.join_cluster import (
    CLIENT,
    CSRS,
    SERVING,
    Build,
    Builder,
    Client,
    ControlPlane,
    in_days,
    make_client_request,
    run_control_plane,
    wait_until,
)
from support.kubelet_requests import make_request
from support.networks import take_network

WORKERS = tuple(f"w{number}" for number in range(1, 13))
UNAUTHORIZED = 401
AUTO_APPROVAL = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "bundler:node-client-certificates"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
    },
    "subjects": [
        {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Group",
            "name": "system:bootstrappers",
        }
    ],
}
"""What bundler 0.1 applied: the controller manager approved every node's request of any token."""


@dataclass
class Site:
    """A control plane with the first build, and the builder for more."""

    builder: Builder
    first: Build
    control_plane: ControlPlane

    def approve(self) -> str:
        return self.first.approve_once()

    def is_deleted(self, build: Build, node: str) -> bool:
        return build.token(node)[:6] not in self.control_plane.list_tokens()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    network = take_network()
    programs = find_programs(tmp_path_factory.mktemp("programs") / "bin")
    builder = Builder(tmp_path_factory.mktemp("site"), network, programs, WORKERS)
    first = builder.build()
    with run_control_plane(first) as control_plane:
        # as an earlier version of bundler left it
        control_plane.host.kubectl("create", "-f", "-", stdin=json.dumps(AUTO_APPROVAL))
        first.apply()
        yield Site(builder, first, control_plane)


def join(site: Site, build: Build, node: str) -> None:
    """Start a worker's kubelet from its bundle, until it has registered its Node."""
    build.join(node)
    build.approve_once()
    wait_until(f"the token of {node} is deleted", lambda: site.is_deleted(build, node), 20)


def expect_refused(client: Client) -> None:
    """API servers keep an answer about a token for 10 s."""
    wait_until("it is refused", lambda: client.send("GET", "/api").status == UNAUTHORIZED, 20)


@pytest.mark.long
def test_an_upgraded_cluster_loses_the_approval_by_group(site: Site) -> None:
    name = AUTO_APPROVAL["metadata"]["name"]
    assert site.control_plane.host.kubectl("get", "clusterrolebinding", name, check=False) == ""


def test_a_worker_joins_with_its_bundle_and_its_token_is_deleted_for_good(site: Site) -> None:
    with site.first.approving():
        process = site.first.start_kubelet("w1")
        assert process.wait(60) == 0, site.first.log("w1")
        time.sleep(2)
        assert not site.is_deleted(site.first, "w1")  # its kubelet may still need it
        site.first.register("w1")
        wait_until("the token is deleted", lambda: site.is_deleted(site.first, "w1"))
    assert site.control_plane.read_record()["w1"].startswith("1 request node-csr-")
    site.first.apply()
    assert site.is_deleted(site.first, "w1")
    expect_refused(site.first.thief("w1"))


def test_the_token_of_one_worker_gives_no_other_identity(site: Site) -> None:
    thief = site.first.thief("w2")
    both = ("digital signature", "client auth", "server auth")
    wrong = {
        "other-node": (make_client_request("w3"), CLIENT, ()),
        "no-node": (make_client_request("anything"), CLIENT, ()),
        "an-administrator": (make_client_request("w2", organization="system:masters"), CLIENT, ()),
        "one-usage-more": (make_client_request("w2"), CLIENT, both),
        "with-names": (make_request("system:node:w2", dns=("w2",), addresses=()), CLIENT, ()),
        "two-blocks": (make_client_request("w2") + make_client_request("w3"), CLIENT, ()),
        "serving": (make_serving(site, "w3"), SERVING, ()),
        "serving-itself": (make_serving(site, "w2"), SERVING, ()),
    }
    for name, (pem, signer, usages) in wrong.items():
        answer = thief.request(name, pem, signer, usages)
        assert answer.status in {201, 422}, (
            name,
            answer,
        )  # the API server refuses two blocks itself
    said = site.approve()
    time.sleep(3)  # of the controller manager
    approved = [name for name in wrong if thief.is_approved(name)]
    assert approved == []
    assert all(
        f"refused {name}: " in said for name in wrong if thief.read_request(name).get("spec")
    )
    assert "w2" not in site.control_plane.read_record()
    join(site, site.first, "w2")


def make_serving(site: Site, node: str) -> bytes:
    address = f"{site.builder.network}.{10 + int(node[1:])}"
    return make_request(f"system:node:{node}", dns=(node,), addresses=(address,))


def test_a_token_that_is_used_gives_no_second_certificate(site: Site) -> None:
    thief = site.first.thief("w4")
    process = site.first.start_kubelet("w4")
    wait_until("a request", lambda: "requested a client" in site.first.log("w4"))
    site.approve()
    assert process.wait(30) == 0
    assert thief.request("second", make_client_request("w4")).status == 201
    said = site.approve()
    assert "refused second: the token of w4 was used by the request node-csr-" in said
    assert "bundler tokens renew w4" in said
    assert not thief.is_approved("second")
    site.first.register("w4")
    site.approve()
    assert site.is_deleted(site.first, "w4")


@pytest.mark.long
def test_the_same_key_is_approved_again_after_its_request_was_deleted(site: Site) -> None:
    client, key = site.first.thief("w3"), ec.generate_private_key(ec.SECP256R1())
    client.request("first-time", make_client_request("w3", key))
    assert "approved first-time: node w3 joins" in site.approve()
    site.control_plane.host.kubectl("delete", "csr", "first-time")
    client.request("second-time", make_client_request("w3", key))
    assert "approved second-time: node w3 joins" in site.approve()
    assert site.control_plane.read_record()["w3"].startswith("1 request first-time ")


def test_a_kill_between_record_and_approval_heals(site: Site, tmp_path: Path) -> None:
    client = site.first.thief("w5")
    client.request("interrupted", make_client_request("w5"))
    wrapper = tmp_path / "kubectl"
    wrapper.write_text(
        '#!/bin/sh\ncase "$*" in *"certificate approve"*) kill -9 0 ;; esac\n'
        f'exec {site.first.programs}/kubectl "$@"\n'
    )
    wrapper.chmod(0o755)
    environment = site.first.environment("cp1")
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    script = site.first.root("cp1") / "opt/k8s/libexec/approve-csrs.sh"
    done = subprocess.run(
        ["sh", script, "--once"], env=environment, start_new_session=True, check=False
    )
    assert done.returncode == -9
    assert site.control_plane.read_record()["w5"].startswith("1 request interrupted ")
    assert not client.is_approved("interrupted")
    assert "approved interrupted: node w5 joins" in site.approve()


@pytest.mark.long
def test_of_competing_requests_two_control_planes_approve_one(site: Site) -> None:
    second = site.builder.build()
    nodes = ("w6", "w7")
    names = {f"{node}-{number}": node for node in nodes for number in range(3)}
    for name, node in names.items():
        site.first.thief(node).request(name, make_client_request(node))
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Build.approve_once, (site.first, second)))
    approved = [node for name, node in names.items() if site.first.thief(node).is_approved(name)]
    assert sorted(approved) == list(nodes)


def test_a_request_cannot_be_named_like_the_line_of_another(site: Site) -> None:
    """A compromised worker forges the list that the approver reads, to get another's certificate."""
    join_if_needed(site, "w1")
    node = site.first.kubelet("w1")
    assert node.request("evil", make_serving(site, "w3"), SERVING).status == 201
    good = base64.b64encode(make_serving(site, "w1")).decode()
    while "/" in good:  # which no name may have
        good = base64.b64encode(make_serving(site, "w1")).decode()
    groups = '["system:nodes""system:authenticated"]'
    usages = '["digital signature""key encipherment""server auth"]'
    for mark in ("", '"'):
        forged = "\t".join([f"{mark}evil{mark}", "-", '"system:node:w1"', groups, usages, good])
        answer = node.request(f"x{mark}\n{forged}\n", make_serving(site, "w1"), SERVING)
        assert answer.status == 201, answer
    said = site.approve()
    assert not node.is_approved("evil")
    assert "refused evil: its subject is CN=system:node:w3" in said
    assert said.count("its name has other characters") == 2
    site.control_plane.delete_requests()


def join_if_needed(site: Site, node: str) -> None:
    if not (site.first.root(node) / "var/lib/kubelet/pki/kubelet-client-current.pem").exists():
        join(site, site.first, node)


def test_a_node_gets_its_own_certificates_and_no_others(site: Site) -> None:
    join_if_needed(site, "w1")
    node = site.first.kubelet("w1")
    node.request("own-serving", make_serving(site, "w1"), SERVING)
    node.request("own-renewal", make_client_request("w1"))
    node.request("serving-of-another", make_serving(site, "w2"), SERVING)
    node.request("client-of-another", make_client_request("w2"))
    site.approve()
    wait_until("the renewal is approved", lambda: node.is_approved("own-renewal"))
    assert node.is_approved("own-serving")
    time.sleep(2)
    assert not node.is_approved("serving-of-another")
    assert not node.is_approved("client-of-another")


@pytest.mark.long
def test_a_certificate_of_a_replaced_ca_requests_the_next_one_itself(site: Site) -> None:
    join_if_needed(site, "w1")
    root = site.first.root("w1")
    before = (root / "var/lib/kubelet/pki/kubelet-client-current.pem").read_bytes()
    shutil.copy(
        site.first.host.pki / "front-proxy-ca.crt", root / "etc/kubernetes/pki/ca-signing.crt"
    )
    process = site.first.start_kubelet("w1")
    assert process.wait(60) == 0
    log = site.first.log("w1")
    assert "is of a previous CA: requesting a new one" in log
    assert "starting with this one" in log  # the CA that signs is not the one that the file names
    assert (root / "var/lib/kubelet/pki/kubelet-client-current.pem").read_bytes() != before
    assert site.first.kubelet("w1").send("GET", "/api/v1/nodes/w1").status == 200


@pytest.mark.long
def test_a_renewed_token_lets_a_host_that_is_installed_again_join(site: Site) -> None:
    join_if_needed(site, "w2")
    site.builder.renew("w2")
    second = site.builder.build()
    second.apply()
    assert not site.is_deleted(second, "w2")
    assert site.control_plane.read_record()["w2"].startswith("1 request ")
    site.approve()  # of the former bundle, on another control plane
    site.first.apply()
    assert not site.is_deleted(second, "w2")
    assert site.is_deleted(site.first, "w2")

    process = second.start_kubelet("w2")
    while process.poll() is None:
        site.approve()  # which refuses it
        second.approve_once()
    assert process.returncode == 0, second.log("w2")
    second.approve_once()
    assert not site.is_deleted(second, "w2")  # the Node is there, but has not lived since
    second.register("w2", heartbeat=in_days(0.001))
    # the former bundle on another control plane has applied the rights for its own tokens
    assert "cannot delete tokens of nodes that have joined" in second.approve_once()
    second.apply()
    assert site.is_deleted(second, "w2")
    assert site.control_plane.read_record()["w2"].startswith("2 request ")


@pytest.mark.long
def test_after_one_control_plane_is_installed_a_stolen_token_is_worth_nothing(site: Site) -> None:
    """The bundle of a node that has not joined was stolen."""
    thief = site.first.thief("w8")
    assert thief.send("GET", "/api").status == 200
    thief.request("before", make_client_request("w8"))
    site.builder.renew("w8")
    second = site.builder.build()
    second.apply()
    assert site.control_plane.read_record()["w8"] == "1 revoked"
    expect_refused(thief)

    # the other control planes still have the former bundle
    said = site.approve()
    assert "refused before: the token of w8 (generation 1) is revoked" in said
    site.first.apply()
    assert site.is_deleted(site.first, "w8")
    # even if its Secret comes back, as from a control plane with an earlier version of bundler
    manifest = site.first.root("cp1") / "etc/kubernetes/bootstrap-tokens.yaml"
    site.control_plane.host.kubectl("apply", "-f", str(manifest))
    assert thief.send("GET", "/api").status == 200
    thief.request("after", make_client_request("w8"))
    for build in (site.first, second):
        build.approve_once()
    assert not thief.is_approved("before")
    assert not thief.is_approved("after")
    second.apply()
    expect_refused(thief)
    join(site, second, "w8")


@pytest.mark.long
def test_a_token_that_has_ended_is_not_accepted_until_a_build_replaces_it(site: Site) -> None:
    path = site.builder.state / "tokens/w9"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"created": in_days(-40).isoformat()}))
    ended = site.builder.build(now=in_days(-39))
    site.control_plane.host.kubectl("-n", "kube-system", "delete", "secret", f"bootstrap-token-{stored['token'][:6]}")  # fmt: skip
    ended.apply()
    assert site.is_deleted(ended, "w9")
    process = ended.start_kubelet("w9")
    wait_until("a reason", lambda: "ended 10 days ago" in ended.reason("w9"))
    process.kill()
    process.wait()
    # an API server refuses it even where its Secret is left
    manifest = ended.root("cp1") / "etc/kubernetes/bootstrap-tokens.yaml"
    site.control_plane.host.kubectl("apply", "-f", str(manifest))
    expect_refused(ended.thief("w9"))

    replaced = site.builder.build()
    replaced.apply()
    assert site.is_deleted(ended, "w9")
    join(site, replaced, "w9")
    assert site.control_plane.read_record()["w9"].startswith("1 request ")


@pytest.mark.long
def test_a_node_that_joined_with_an_earlier_version_has_no_use_for_its_token(site: Site) -> None:
    register_without_record(site, "w10")
    thief = site.first.thief("w10")
    assert thief.request("late", make_client_request("w10")).status == 201
    said = site.approve()
    assert "refused late: the node w10 has joined already" in said
    assert site.control_plane.read_record()["w10"] == "1 joined"
    assert site.is_deleted(site.first, "w10")
    site.first.apply()
    expect_refused(thief)


def register_without_record(site: Site, node: str) -> None:
    """A Node whose kubelet got its certificate in another way."""
    host = site.control_plane.host
    host.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))  # fmt: skip
    admin = Client(host.address, host.pki / "ca.crt", certificate=write_admin(site))
    beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}  # fmt: skip
    document = {"status": {"conditions": [beat], "nodeInfo": {"kubeletVersion": "v1.20.2"}}}
    answer = admin.send(
        "PATCH", f"/api/v1/nodes/{node}/status", document, kind="strategic-merge-patch+json"
    )
    assert answer.status == 200, answer


def write_admin(site: Site) -> Path:
    text = (site.first.root("cp1") / "etc/kubernetes/admin.kubeconfig").read_text()
    path = site.builder.directory / "admin.pem"
    fields = ("client-certificate-data", "client-key-data")
    found = [line.split()[1] for name in fields for line in text.splitlines() if name in line]
    path.write_bytes(b"".join(base64.b64decode(value) for value in found))
    return path


def test_without_the_record_nobody_joins(site: Site) -> None:
    kept = site.control_plane.read_record()
    site.control_plane.host.kubectl("-n", "kube-system", "delete", "configmap", "bundler-spent-tokens")  # fmt: skip
    client = site.first.thief("w11")
    client.request("no-record", make_client_request("w11"))
    said = site.approve()
    assert "could not approve no-record: cannot read the ConfigMap bundler-spent-tokens" in said
    assert not client.is_approved("no-record")

    # kube-apply makes the ConfigMap again; what the Nodes show is restored
    site.first.apply()
    record = site.control_plane.read_record()
    joined = {name for name, value in kept.items() if site.control_plane.host.kubectl("get", "node", name, check=False)}  # fmt: skip
    assert joined <= record.keys()
    assert "approved no-record: node w11 joins" in site.approve()


@pytest.mark.long
def test_a_record_from_before_a_token_was_used_is_corrected(site: Site) -> None:
    """As after a snapshot was restored: the token is there again, and the record has nothing."""
    join_if_needed(site, "w1")
    site.approve()
    host = site.control_plane.host
    manifest = site.first.root("cp1") / "etc/kubernetes/bootstrap-tokens.yaml"
    host.kubectl("apply", "-f", str(manifest))
    host.kubectl("delete", "node", "w1")
    patch = json.dumps({"data": {"w1": None}})
    host.kubectl("-n", "kube-system", "patch", "configmap", "bundler-spent-tokens", "--type=merge", "-p", patch)  # fmt: skip
    thief = site.first.thief("w1")
    assert thief.request("restored", make_client_request("w1")).status == 201
    said = site.approve()
    assert "the record is older than this control plane's: correcting it" in said
    assert "refused restored: the " in said
    # the token is deleted by now, so the thief may not even read it
    status = json.loads(host.kubectl("get", "csr", "restored", "-o", "json")).get("status", {})
    assert status.get("conditions", []) == []
    assert "w1" in site.control_plane.read_record()


def test_the_approver_has_no_right_that_it_does_not_need(site: Site) -> None:
    other = site.first.token("w12")[:6]
    own = {
        "get configmap/bundler-spent-tokens": "yes",
        "patch configmap/bundler-spent-tokens": "yes",
        "patch configmap/extension-apiserver-authentication": "no",
        "create configmaps": "no",
        f"delete secret/bootstrap-token-{other}": "yes",
        "delete secret/other": "no",
        "delete secrets": "no",
        "get secrets": "no",
        f"get secret/bootstrap-token-{other}": "no",
        "create secrets": "no",
        "get nodes": "yes",
        "delete nodes": "no",
        "create certificatesigningrequests": "no",
    }
    kubeconfig = site.first.root("cp1") / "etc/kubernetes/csr-approver.kubeconfig"
    for what, expected in own.items():
        done = subprocess.run(
            [
                site.first.programs / "kubectl", "--kubeconfig", kubeconfig, "-n", "kube-system",
                "auth", "can-i", *what.split(),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.split()[0] == expected, (what, done)


def test_requests_of_a_bootstrap_token_are_all_that_it_can_do(site: Site) -> None:
    thief = site.first.thief("w12")
    for path in ("/api/v1/nodes", "/api/v1/secrets", "/api/v1/pods", "/api/v1/namespaces/kube-system/configmaps"):  # fmt: skip
        assert thief.send("GET", path).status == 403, path
    name = ipaddress.ip_address("192.0.2.1")
    pem = make_request("system:node:w12", dns=(), addresses=(str(name),))
    assert thief.request("legacy", pem, "kubernetes.io/kube-apiserver-client").status == 201
    site.approve()
    time.sleep(2)
    assert not thief.is_approved("legacy")
    assert thief.send("DELETE", f"{CSRS}/legacy").status == 403
