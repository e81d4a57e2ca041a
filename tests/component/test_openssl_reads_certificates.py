"""openssl reads and verifies every key and certificate of the PKI."""

import re
import subprocess
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pytest

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Cluster, Role
from bundler.cluster.values import Arch
from bundler.pki import declarations
from bundler.pki.cluster_pki import ensure_pki
from bundler.state.directory import open_state

ROLES = (Role.ETCD, Role.CONTROL_PLANE, Role.WORKER, Role.REGISTRY)
LEAVES = [
    (spec, f"nodes/master1/{spec.name}" if spec.roles else spec.name)
    for spec in declarations.CERTIFICATES
    if spec.feature != "flannel-etcd"
]
each_leaf = pytest.mark.parametrize(
    ("spec", "directory"), LEAVES, ids=[directory for _, directory in LEAVES]
)


def make_plan(kind):
    nodes = (("master1", "172.30.20.11"), ("master2", "172.30.20.12"))
    cluster = Cluster.model_validate(
        {
            "apiVersion": "bundler/v1alpha1",
            "name": "lab",
            "pki": {"key": kind},
            "metrics_server": {},
            "registry": {"nodes": ["master1", "master2"]},
            "network": {"plugin": "flannel", "policy": {"engine": "kube-router"}},
            "nodes": [
                {"name": name, "address": address, "roles": list(ROLES)} for name, address in nodes
            ],
        }
    )
    return ClusterPlan(
        cluster=cluster,
        nodes=tuple(
            NodePlan(
                name=name,
                address=IPv4Address(address),
                roles=ROLES,
                arch=Arch.AMD64,
                pod_subnet=None,
            )
            for name, address in nodes
        ),
        endpoint_host="api.example.org",
        endpoint_port=8443,
        service_ip=IPv4Address("10.254.0.1"),
        dns_ip=IPv4Address("10.254.0.2"),
        etcd_version="3.4.23",
    )


@pytest.fixture(scope="module", params=["ecdsa-p256", "rsa-2048"])
def store(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "state"
    with open_state(path, create=True) as state:
        ensure_pki(state, make_plan(request.param), datetime.now(UTC))
    return path / "pki"


def openssl(*arguments):
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def verify(store, spec, directory, *options):
    return openssl(
        "verify",
        "-x509_strict",
        "-CAfile",
        store / spec.ca / "cert.pem",
        *options,
        store / directory / "cert.pem",
    )


def read_text(path):
    result = openssl("x509", "-in", path, "-noout", "-text", "-nameopt", "RFC2253")
    assert result.returncode == 0, result.stderr
    return result.stdout


@each_leaf
def test_openssl_verifies_each_certificate_against_its_own_ca(store, spec, directory):
    result = verify(store, spec, directory)
    assert result.returncode == 0, result.stderr


@each_leaf
def test_openssl_refuses_each_certificate_against_the_other_cas(store, spec, directory):
    for name in set(declarations.CA_NAMES) - {spec.ca}:
        ca = store / name / "cert.pem"
        result = openssl("verify", "-CAfile", ca, store / directory / "cert.pem")
        assert result.returncode != 0


@each_leaf
def test_openssl_accepts_each_certificate_for_its_purposes_only(store, spec, directory):
    for purpose, usage in (("sslserver", declarations.SERVER), ("sslclient", declarations.CLIENT)):
        result = verify(store, spec, directory, "-purpose", purpose)
        assert (result.returncode == 0) == (usage in spec.usages), result.stderr


@each_leaf
def test_openssl_finds_constraints_usages_and_the_matching_key(store, spec, directory):
    text = read_text(store / directory / "cert.pem")
    assert re.search(r"Basic Constraints: critical\n\s+CA:FALSE\n", text)
    assert re.search(r"X509v3 Key Usage: critical\n\s+Digital Signature(, Key Enc\w+)?\n", text)
    assert ("Key Encipherment" in text) == ("rsaEncryption" in text)
    assert "Authority Key Identifier" in text
    assert "Subject Key Identifier" in text
    public = openssl("x509", "-in", store / directory / "cert.pem", "-noout", "-pubkey").stdout
    assert openssl("pkey", "-in", store / directory / "key.pem", "-pubout").stdout == public


@pytest.mark.parametrize("name", declarations.CA_NAMES)
def test_openssl_finds_that_a_ca_may_sign_leaves_only(store, name):
    text = read_text(store / name / "cert.pem")
    assert re.search(r"Basic Constraints: critical\n\s+CA:TRUE, pathlen:0\n", text)
    assert re.search(r"X509v3 Key Usage: critical\n\s+Certificate Sign, CRL Sign\n", text)
    assert f"CN={name},O=lab" in text


@pytest.mark.parametrize(
    ("option", "name", "accepted"),
    [
        ("-verify_ip", "10.254.0.1", True),
        ("-verify_ip", "127.0.0.1", True),
        ("-verify_ip", "172.30.20.12", True),
        ("-verify_ip", "172.30.20.13", False),
        ("-verify_hostname", "api.example.org", True),
        ("-verify_hostname", "kubernetes.default.svc.cluster.local", True),
        ("-verify_hostname", "master2", True),
        ("-verify_hostname", "master3", False),
        ("-verify_hostname", "kube-apiserver", False),
    ],
)
def test_openssl_accepts_the_api_server_under_its_names_only(store, option, name, accepted):
    spec, directory = LEAVES[0]
    assert spec.name == "apiserver"
    result = verify(store, spec, directory, option, name)
    assert (result.returncode == 0) == accepted, result.stderr


def test_openssl_reads_the_subject_of_the_administrator(store):
    assert "Subject: CN=kubernetes-admin,O=bundler:cluster-admins" in read_text(
        store / "admin/cert.pem"
    )


def test_openssl_verifies_signatures_with_the_service_account_key_pair(store, tmp_path):
    directory = store / "service-account"
    public = openssl("pkey", "-in", directory / "key.pem", "-pubout").stdout
    assert public == (directory / "pub.pem").read_text()
    (tmp_path / "data").write_text("a token")
    signature = tmp_path / "signature"
    data = tmp_path / "data"
    signed = openssl("dgst", "-sha256", "-sign", directory / "key.pem", "-out", signature, data)
    assert signed.returncode == 0
    checked = openssl(
        "dgst", "-sha256", "-verify", directory / "pub.pem", "-signature", signature, data
    )
    assert checked.stdout == "Verified OK\n"
