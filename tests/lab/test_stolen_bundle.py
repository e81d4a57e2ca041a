"""A worker's bundle is stolen: what its files are good for, on a sixth host, before and after renewed tokens."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.lab import Cluster, Host, Kubectl, build, docker, hosts_sh, wait_for

pytestmark = pytest.mark.long
ADDRESS = "172.30.20.61"
REQUESTS = ("worker1", "worker2", "master1", "anything")
SECONDS = 20  # the approver looks every 5 s
KUBECTL = "/opt/k8s/bin/kubectl --kubeconfig /root/stolen.kubeconfig --request-timeout=10s"


@dataclass(frozen=True)
class Theft:
    """The cluster, and a host with the files of worker1's bundle."""

    cluster: Cluster
    cache: Path
    thief: Host

    @property
    def worker(self) -> Host:
        return self.cluster.hosts["worker1"]

    def steal(self) -> None:
        """Copy the bundle as it was carried through the gate, and use its bootstrap kubeconfig."""
        directory = self.thief.unpack(self.cluster.bundle(self.worker))
        self.thief.run(
            f"mkdir -p /opt/k8s && cp -r {directory}/rootfs/opt/k8s/bin /opt/k8s/ &&"
            f" cp {directory}/rootfs/etc/kubernetes/bootstrap.kubeconfig /root/stolen.kubeconfig"
        )

    def request(self, node: str) -> tuple[int, str]:
        """Request a kubelet's certificate; return kubectl's exit code and what it printed."""
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
            ]
        )
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        request = base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()
        manifest = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": f"stolen-{node}"},
            "spec": {
                "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
                "usages": ["digital signature", "key encipherment", "client auth"],
                "request": request,
            },
        }
        done = self.thief.run(
            f"printf '%s' '{json.dumps(manifest)}' | {KUBECTL} create --validate=false -f -",
            check=False,
        )
        return done.returncode, done.stdout

    def bundler(self, *arguments: str) -> None:
        description = self.cluster.directory / "examples/lab.yaml"
        done = subprocess.run(
            [Path(sys.executable).parent / "bundler", *arguments, "-c", description],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def theft(running: Cluster, product_cache: Path) -> Iterator[Theft]:
    thief = Host("thief", ADDRESS)
    hosts_sh("boot", f"thief={ADDRESS}")
    made = Theft(cluster=running, cache=product_cache, thief=thief)
    made.steal()
    yield made
    docker("rm", "-fv", thief.container)


def list_tokens(kubectl: Kubectl) -> set[str]:
    text = kubectl(
        "-n kube-system get secrets --field-selector type=bootstrap.kubernetes.io/token -o name"
    )
    return set(text.split())


def test_the_tokens_of_nodes_that_joined_are_deleted(theft: Theft) -> None:
    kubectl = theft.cluster.kubectl
    wait_for("tokens are deleted", lambda: not list_tokens(kubectl), seconds=60)


@pytest.mark.parametrize("node", REQUESTS)
def test_a_stolen_token_obtains_no_certificate_while_the_worker_is_alive(
    theft: Theft, node: str
) -> None:
    code, said = theft.request(node)
    assert code != 0
    assert "Unauthorized" in said or "must be logged in" in said, said


def test_the_token_alone_is_not_enough_even_if_it_is_valid_again(theft: Theft) -> None:
    """An administrator creates the deleted Secrets again, as an older etcd snapshot would hold them."""
    kubectl = theft.cluster.kubectl
    kubectl("apply -f /etc/kubernetes/bootstrap-tokens.yaml")
    for node in REQUESTS:
        theft.request(node)
    time.sleep(SECONDS)
    assert not any_certificate(kubectl)
    # verify.sh reports requests that nobody approves
    kubectl(f"delete csr {' '.join(f'stolen-{node}' for node in REQUESTS)}")
    kubectl(f"-n kube-system delete {' '.join(list_tokens(kubectl))}")


def any_certificate(kubectl: Kubectl) -> bool:
    requests = json.loads(kubectl("get certificatesigningrequests -o json"))["items"]
    mine = [one for one in requests if one["metadata"]["name"].startswith("stolen-")]
    return any(one["status"].get("certificate") for one in mine)


def test_after_tokens_renew_and_one_control_plane_the_stolen_bundle_is_worthless(
    theft: Theft,
) -> None:
    theft.bundler("tokens", "renew", "worker1")
    cluster, kubectl = theft.cluster, theft.cluster.kubectl
    build(cluster.directory / "examples" / "lab.yaml", cluster.dist, cache=theft.cache)
    master = cluster.masters[0]
    master.run(f"{master.unpack(cluster.bundle(master))}/install.sh --wait 10m", timeout=900)
    wait_for("the new token is in the cluster", lambda: len(list_tokens(kubectl)) == 1, seconds=120)
    for node in REQUESTS:
        code, said = theft.request(node)
        assert code != 0
        assert "Unauthorized" in said or "must be logged in" in said, said


def test_the_honest_worker_joins_again_with_its_new_bundle(theft: Theft) -> None:
    cluster, worker = theft.cluster, theft.worker
    worker.run(f"/root/lab-{worker.name}/uninstall.sh --yes --purge-data", timeout=600)
    directory = worker.unpack(cluster.bundle(worker))
    worker.run(f"{directory}/install.sh --wait 10m", timeout=900)
    kubectl = cluster.kubectl
    wait_for("its token is deleted", lambda: not list_tokens(kubectl), seconds=120)
    for host in (*cluster.masters[1:], cluster.hosts["worker2"]):
        host.run(f"{host.unpack(cluster.bundle(host))}/install.sh --wait 10m", timeout=900)
    wait_for("verify.sh is green", lambda: cluster.verify().returncode == 0, seconds=240)


def test_the_thief_is_refused_to_the_end(theft: Theft) -> None:
    for node in REQUESTS:
        code, said = theft.request(node)
        assert code != 0
        assert "Unauthorized" in said or "must be logged in" in said, said
    assert not any_certificate(theft.cluster.kubectl)
