"""A cluster of a control plane and two workers, as bundler renders it: real etcd and Kubernetes, kubelets played.

The control plane's programs run as in its units. A kubelet is a request for a certificate with the worker's
bootstrap kubeconfig, and then requests with that certificate.
"""

import base64
import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bundler.cache.store import Cache
from bundler.cluster.schema import Cluster
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.tree import write_tree
from support.external_ca_cluster import Host
from support.projects import open_plan

WORKERS = ("w1", "w2")
CLIENT_USAGES = ["digital signature", "key encipherment", "client auth"]


@dataclass
class Answer:
    """What kubectl said."""

    code: int
    output: str
    errors: str

    @property
    def is_forbidden(self) -> bool:
        """Whether an authorizer or an admission plugin refused; any other failure is an error of the test."""
        assert self.code == 0 or "orbidden" in self.errors, self.errors
        return self.code != 0


@dataclass
class Client:
    """Sends requests to the API server with what a kubeconfig holds: a token, or a client certificate."""

    address: str
    context: ssl.SSLContext
    headers: dict[str, str]

    @classmethod
    def read(cls, kubeconfig: Path, directory: Path) -> "Client":
        """`directory` is for files of the certificate and the key, which Python reads only from files."""
        found = yaml.safe_load(kubeconfig.read_text())
        server, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
        authorities = base64.b64decode(server["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authorities)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "client-certificate-data" in user:
            pem = directory / f"{kubeconfig.stem}-of-{kubeconfig.parts[-5]}.pem"
            names = ("client-certificate-data", "client-key-data")
            pem.write_bytes(b"".join(base64.b64decode(user[name]) for name in names))
            context.load_cert_chain(pem)
        elif "client-certificate" in user:
            context.load_cert_chain(user["client-certificate"], user["client-key"])
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        return cls(server["server"].removeprefix("https://"), context, headers)

    def request(
        self, method: str, path: str, body: str = "", *, dry_run: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """The status and the answer, if that is JSON."""
        kind = "merge-patch+json" if method == "PATCH" else "json"
        headers = {**self.headers, "Content-Type": f"application/{kind}"}
        if dry_run and method != "GET":
            path += ("&" if "?" in path else "?") + "dryRun=All"
        connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=20)
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        is_object = answer.headers.get_content_type() == "application/json" and "watch=" not in path
        return answer.status, json.loads(text) if is_object else {}


@dataclass
class PlannedCluster:
    """The control plane, and the trees of the workers' bundles."""

    host: Host
    directory: Path

    def worker(self, name: str) -> Path:
        """The root of the files that a worker's bundle installs."""
        return self.directory / f"tree-{name}" / "rootfs"

    def kubectl(self, kubeconfig: Path, *words: str, stdin: str = "") -> Answer:
        done = subprocess.run(
            [self.host.programs / "kubectl", "--kubeconfig", kubeconfig, *words],
            capture_output=True, text=True, check=False, input=stdin,
            env={**os.environ, "HOME": str(self.directory)},
        )  # fmt: skip
        return Answer(done.returncode, done.stdout, done.stderr)

    def run(self, script: str, *words: str, **environment: str) -> str:
        """Run a script of the control plane's /opt/k8s/libexec as its unit does."""
        log = self.directory / f"{script}.log"
        with log.open("w") as file:
            done = subprocess.run(
            ["timeout", "120", "sh", self.host.root / "opt/k8s/libexec" / script, *words],
            stdout=file, stderr=file, check=False,
            env={
                **os.environ, "DESTDIR": str(self.host.root), "HOME": str(self.directory),
                "PATH": f"{self.host.programs}:{os.environ['PATH']}", **environment,
            },
        )  # fmt: skip
        assert done.returncode == 0, log.read_text()
        return log.read_text()

    def apply_addons(self) -> None:
        self.run("apply-addons.sh", API_LOCAL=f"https://{self.host.address}:6443", MAX_PAUSE="2")

    def join(self, name: str) -> Path:
        """Get a kubelet's client certificate as a kubelet does; returns a kubeconfig with it."""
        kubeconfig = self.worker(name) / "etc/kubernetes/bootstrap.kubeconfig"
        key = ec.generate_private_key(ec.SECP256R1())
        csr = f"node-csr-{name}"
        body = json.dumps(make_csr(csr, sign_request(key, f"system:node:{name}"), CLIENT_USAGES))
        asked = self.kubectl(kubeconfig, "create", "-f", "-", stdin=body)
        assert asked.code == 0, asked.errors
        certificate = self.await_certificate(csr)
        return self.write_identity(name, key, certificate)

    def await_certificate(self, csr: str) -> str:
        deadline = time.monotonic() + 60
        words = ("get", "csr", csr, "-o", "jsonpath={.status.certificate}")
        while not (issued := self.host.kubectl(*words)):
            assert time.monotonic() < deadline, self.host.kubectl("get", "csr", csr, "-o", "yaml")
            self.run("approve-csrs.sh", "--once")
            time.sleep(0.5)
        return base64.b64decode(issued).decode()

    def write_identity(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: str) -> Path:
        """What the kubelet keeps: kubelet-client-current.pem and a kubeconfig that names it."""
        pem = self.directory / f"kubelet-{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()  # fmt: skip
        pem.write_text(certificate + private)
        bootstrap = json.loads(
            self.kubectl(
                self.worker(name) / "etc/kubernetes/bootstrap.kubeconfig",
                "config", "view", "--raw", "-o", "json",
            ).output
        )  # fmt: skip
        bootstrap["users"][0]["user"] = {"client-certificate": str(pem), "client-key": str(pem)}
        kubeconfig = self.directory / f"kubelet-{name}.kubeconfig"
        kubeconfig.write_text(json.dumps(bootstrap))
        return kubeconfig


def sign_request(key: ec.EllipticCurvePrivateKey, common_name: str) -> bytes:
    """A kubelet's request for a client certificate, in PEM."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_csr(name: str, request: bytes, usages: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(request).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": usages,
        },
    }


def describe_planned(address: str, **more: Any) -> dict[str, Any]:
    """One control plane, which is no worker, and two workers; `address` is like 127.31.8.1."""
    network = address.rpartition(".")[0]
    workers = [
        {"name": name, "address": f"{network}.{place}", "roles": ["worker"]}
        for place, name in enumerate(WORKERS, 11)
    ]
    return {
        "apiVersion": "bundler/v1alpha1",
        "name": "planned",
        "kubernetes": {"version": "1.20.2"},
        "etcd": {"version": "3.4.23"},
        "runtime": {"engine": "containerd"},
        "dns": {"provider": "none"},
        "control_plane": {"endpoint": f"{address}:6443"},
        "nodes": [
            {"name": "m1", "address": address, "roles": ["etcd", "control-plane"]},
            *workers,
        ],
        **more,
    }


@contextmanager
def start_cluster(
    directory: Path, programs: Path, description: dict[str, Any]
) -> Iterator[PlannedCluster]:
    """Install the control plane, start it and apply its addons; write the workers' trees."""
    host = Host.install(directory, programs, description)
    inputs = Inputs(description=directory / "cluster.yaml", cache=Cache(directory / "cache"))
    with open_plan(Cluster.model_validate(description), inputs) as (plan, secrets):
        for node in plan.nodes[1:]:
            write_tree(render_node(plan, node, secrets), directory / f"tree-{node.name}")
    cluster = PlannedCluster(host=host, directory=directory)
    try:
        host.start("etcd")
        host.wait("etcd is healthy", lambda: host.etcdctl("endpoint", "health").returncode == 0)
        host.start("kube-apiserver")
        host.wait(
            "the API answers", lambda: host.kubectl("get", "--raw=/readyz", check=False) == "ok"
        )
        host.start("kube-controller-manager")
        cluster.apply_addons()
        yield cluster
    finally:
        host.stop()
