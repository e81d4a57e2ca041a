"""Real etcd and Kubernetes with an external CA: which clients are accepted and which rejected."""

import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.external_ca_cluster import Host, describe, find_programs, trusting
from support.networks import take_network
from support.offline_root import OfflineRoot, openssl

from bundler.cluster.plan import make_plan
from bundler.cluster.schema import Cluster
from bundler.paths import default_state, templates_directory
from bundler.pki.external_ca.csr_files import write_requests
from bundler.pki.external_ca.import_signed import import_signed
from bundler.pki.external_ca.requests import ensure_requests
from bundler.state.directory import open_state

CLIENT = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth"
ADMIN = "/O=system:masters/CN=kubernetes-admin"
ETCD_CLIENT = "/CN=kube-apiserver-etcd-client"


@dataclass
class Site:
    host: Host
    root: OfflineRoot
    mode: str


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_programs(tmp_path_factory.mktemp("programs") / "bin")


@pytest.fixture(
    scope="module", params=["intermediates", pytest.param("leaves", marks=pytest.mark.long)]
)
def site(
    request: pytest.FixtureRequest, programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A cluster whose certificates an offline root signed by the commands of README.txt."""
    mode = request.param
    directory = tmp_path_factory.mktemp(mode)
    description = describe(f"{take_network()}.1")
    root = OfflineRoot(directory / "bank")
    cluster = Cluster.model_validate(description)
    plan, now = make_plan(cluster), datetime.now(UTC)
    with open_state(default_state(directory / "cluster.yaml", cluster.name), create=True) as state:
        wanted = ensure_requests(state, plan, now, leaves=mode == "leaves")
        write_requests(wanted, plan, directory / "requests")
        signers = {"root": root.file}
        if mode == "leaves":
            names = ("kubernetes_ca", "etcd_ca", "front_proxy_ca")
            signers |= {name: root.issue_ca(f"own {name}") for name in names}
        root.follow(directory / "requests", **signers)
        issuers = [file for name, file in signers.items() if name != "root"]
        import_signed(
            state, plan, [directory / "requests", *issuers], datetime.now(UTC), root=root.file
        )
    host = Host.install(directory, programs, description)
    try:
        host.start_api()
        host.apply_addons()  # gives the administrator rights, with a certificate that the PKI signed
        yield Site(host=host, root=root, mode=mode)
    finally:
        host.stop()


@pytest.fixture(scope="module")
def other_intermediate(site: Site) -> Path:
    """Another intermediate of the same root, which is not for this cluster."""
    return site.root.issue_ca("another department")


def sign_under_the_cluster(site: Site, ca: str, name: str, subject: str) -> Path:
    """The same certificate from the CA of the cluster, which must be accepted."""
    issuer = site.root.directory / f"own-{ca}.crt"
    if site.mode == "leaves":
        issuer = site.root.directory / f"own {ca.replace('-', '_')}.crt"
    else:
        state = site.host.root.parents[1] / "own.state/pki" / ca
        issuer.write_bytes((state / "cert.pem").read_bytes())
        issuer.with_suffix(".key").write_bytes((state / "key.pem").read_bytes())
    return site.root.issue(name, subject, CLIENT, issuer=issuer)


def add_chain(client: Path, *above: Path) -> Path:
    """A client certificate with its issuers, which a server might use to build a chain."""
    chain = client.with_name(f"{client.stem} with chain.crt")
    chain.write_bytes(b"".join(file.read_bytes() for file in (client, *above)))
    chain.with_suffix(".key").write_bytes(client.with_suffix(".key").read_bytes())
    return chain


def test_the_api_server_rejects_a_client_of_another_intermediate(
    site: Site, other_intermediate: Path
) -> None:
    ca = site.host.pki / "ca-servers.crt"
    theirs = site.root.issue("their admin", ADMIN, CLIENT, issuer=other_intermediate)
    status, answer = site.host.ask("/api/v1/namespaces", trusting(ca, theirs))
    assert (status, answer["reason"]) == (401, "Unauthorized")

    # also with the complete chain up to the root
    chain = add_chain(theirs, other_intermediate, site.root.file)
    assert site.host.ask("/api/v1/namespaces", trusting(ca, chain))[0] == 401

    ours = sign_under_the_cluster(site, "kubernetes-ca", "our admin", ADMIN)
    assert site.host.ask("/api/v1/namespaces", trusting(ca, ours))[0] == 200


def test_the_api_server_rejects_a_client_that_the_root_signed(site: Site) -> None:
    theirs = site.root.issue("admin of the root", ADMIN, CLIENT)
    status, _ = site.host.ask("/api", trusting(site.host.pki / "ca-servers.crt", theirs))
    assert status == 401


def test_etcd_rejects_a_client_of_another_intermediate(
    site: Site, other_intermediate: Path
) -> None:
    theirs = site.root.issue("their etcd client", ETCD_CLIENT, CLIENT, issuer=other_intermediate)
    chain = add_chain(theirs, other_intermediate, site.root.file)
    done = site.host.etcdctl("get", "/registry", "--prefix", "--keys-only", cert=chain)
    assert done.returncode != 0
    assert "certificate signed by unknown authority" in site.host.log("etcd")

    ours = sign_under_the_cluster(site, "etcd-ca", "our etcd client", ETCD_CLIENT)
    done = site.host.etcdctl("get", "/registry", "--prefix", "--keys-only", cert=ours)
    assert "/registry/namespaces/default" in done.stdout


def test_etcd_rejects_clients_of_the_other_cas_of_the_cluster(site: Site) -> None:
    client = site.host.pki / "apiserver-kubelet-client.crt"
    assert site.host.etcdctl("endpoint", "health", cert=client).returncode != 0


def test_a_client_that_trusts_only_the_root_accepts_the_servers(site: Site) -> None:
    admin = sign_under_the_cluster(site, "kubernetes-ca", "an admin", ADMIN)
    status, answer = site.host.ask("/version", trusting(site.root.file, admin))
    assert (status, answer["gitVersion"]) == (200, "v1.20.2")
    assert site.host.etcdctl("endpoint", "health", ca=site.root.file).returncode == 0


def test_only_the_file_for_pods_includes_the_root(site: Site) -> None:
    site.host.ask("/version", trusting(site.host.pki / "ca-servers.crt"))
    site.host.ask("/version", trusting(site.host.pki / "ca.crt", partial=True))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
        site.host.ask("/version", trusting(site.host.pki / "ca.crt"))
    root = "".join(site.root.file.read_text().split())
    holding = [
        path.relative_to(site.host.root).as_posix()
        for path in site.host.root.rglob("*")
        if path.is_file() and not path.is_symlink() and root in "".join(read_text(path).split())
    ]
    assert holding == ["etc/kubernetes/pki/ca-servers.crt"]


def read_text(path: Path) -> str:
    return path.read_text(errors="replace") if path.stat().st_size < 1 << 20 else ""


def test_scripts_of_the_host_trust_an_intermediate(site: Site, tmp_path: Path) -> None:
    pki, etcd = site.host.pki, site.host.root / "etc/etcd/pki"
    script = tmp_path / "ask.sh"
    client = pki / "apiserver-kubelet-client"
    health = etcd / "healthcheck-client"
    script.write_text(
        f". {templates_directory()}/common/lib/core/https.sh\n"
        f"https_status {site.host.address} 6443 /version {pki}/ca.crt {client}.crt {client}.key\n"
        f"https_status {site.host.address} 2379 /health {etcd}/ca.crt {health}.crt {health}.key\n"
        f"https_status {site.host.address} 6443 /version {etcd}/ca.crt {client}.crt {client}.key\n"
    )
    for shell in ("sh", "bash"):
        done = subprocess.run([shell, script], capture_output=True, text=True, check=True)
        good, also_good, bad = done.stdout.splitlines()
        assert (good, also_good) == ("200", "200")
        assert bad.startswith("000 certificate: unable to get")


def test_the_controller_manager_signs_for_kubelets_and_publishes_the_cas_for_pods(
    site: Site, tmp_path: Path
) -> None:
    host = site.host
    host.start("kube-controller-manager")
    roots = "jsonpath={.data.ca\\.crt}"
    host.wait(
        "the CAs for pods are published",
        lambda: host.kubectl(
            "get", "configmap", "kube-root-ca.crt", "-n", "default", "-o", roots, check=False
        ).strip() == (host.pki / "ca-servers.crt").read_text().strip(),
    )  # fmt: skip
    openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "kubelet.key",
        "-out", tmp_path / "kubelet.csr", "-subj", "/O=system:nodes/CN=system:node:one",
    )  # fmt: skip
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "kubelet"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "key encipherment", "client auth"],
            "request": base64.b64encode((tmp_path / "kubelet.csr").read_bytes()).decode(),
        },
    }
    host.kubectl("create", "-f", "-", stdin=json.dumps(body))
    host.kubectl("certificate", "approve", "kubelet")
    signed = "jsonpath={.status.certificate}"
    host.wait("it is signed", lambda: host.kubectl("get", "csr", "kubelet", "-o", signed))
    certificate = base64.b64decode(host.kubectl("get", "csr", "kubelet", "-o", signed))
    (tmp_path / "kubelet.crt").write_bytes(certificate)

    # the API server authenticates the kubelet, and the trusted CAs verify its certificate
    status, _ = host.ask(
        "/api/v1/nodes/one", trusting(host.pki / "ca-servers.crt", tmp_path / "kubelet.crt")
    )
    assert status == 404  # authorized; the Node object does not exist
    openssl("verify", "-partial_chain", "-CAfile", host.pki / "ca.crt", tmp_path / "kubelet.crt")
    issuer = openssl("x509", "-in", tmp_path / "kubelet.crt", "-noout", "-issuer")
    assert ("kubelet-ca" in issuer) == (site.mode == "leaves")
    if site.mode == "leaves":  # the other CAs do not verify it
        for other in (host.pki / "etcd-ca.crt", host.pki / "front-proxy-ca.crt"):
            with pytest.raises(AssertionError, match="unable to get"):
                openssl("verify", "-partial_chain", "-CAfile", other, tmp_path / "kubelet.crt")


def test_a_bundle_holds_only_the_ca_key_that_signs_for_kubelets(
    site: Site,
) -> None:
    keys = {path.relative_to(site.host.root).as_posix() for path in site.host.root.rglob("ca*.key")}
    assert keys == {"etc/kubernetes/pki/ca.key"}
    key = openssl("pkey", "-in", site.host.pki / "ca.key", "-pubout")
    assert key == openssl("x509", "-in", site.host.pki / "ca-signing.crt", "-noout", "-pubkey")
