"""A real control plane, and workers that join it from their bundles, as processes below a directory."""

import base64
import http.client
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bundler.cache.store import Cache
from bundler.cluster.addons.charts import RenderChart
from bundler.cluster.addons.planned import plan_addons
from bundler.cluster.addons.read import read_addons
from bundler.cluster.plan import assign_pod_subnets, make_plan
from bundler.cluster.schema import Cluster
from bundler.pki.cluster_pki import ensure_pki
from bundler.project import Inputs
from bundler.render.node import render_node
from bundler.render.state_values import Secrets
from bundler.render.tree import write_tree
from bundler.state.directory import open_state
from bundler.state.encryption import ensure_encryption_keys
from bundler.state.tokens import ensure_tokens, renew_tokens
from support.external_ca_cluster import Host, link_programs
from support.projects import make_project

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
USAGES = {SERVING: "server auth"}
RECORD = "/api/v1/namespaces/kube-system/configmaps/bundler-spent-tokens"


def describe(network: str, workers: tuple[str, ...]) -> dict[str, Any]:
    """One control plane at .1, and the workers from .11 on."""
    nodes = [{"name": "cp1", "address": f"{network}.1", "roles": ["etcd", "control-plane"]}]
    nodes += [
        {"name": name, "address": f"{network}.{11 + number}", "roles": ["worker"]}
        for number, name in enumerate(workers)
    ]
    return {
        "apiVersion": "bundler/v1alpha1",
        "name": "join",
        "kubernetes": {"version": "1.20.2"},
        "etcd": {"version": "3.4.23"},
        "runtime": {"engine": "containerd"},
        "dns": {"provider": "none"},
        "control_plane": {"endpoint": f"{network}.1:6443"},
        "nodes": nodes,
    }


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]

    @property
    def items(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body.get("items", [])
        return found


@dataclass(frozen=True)
class Client:
    """Somebody with credentials of the API: a token, or a certificate with its key."""

    address: str
    ca: Path
    token: str = field(default="", repr=False)
    certificate: Path | None = None

    @classmethod
    def read(cls, kubeconfig: Path) -> "Client":
        """Somebody with the credentials of a kubeconfig; their files are written next to it."""
        found = yaml.safe_load(kubeconfig.read_text())
        server, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
        ca, pem = kubeconfig.with_suffix(".ca.crt"), kubeconfig.with_suffix(".pem")
        ca.write_bytes(base64.b64decode(server["certificate-authority-data"]))
        address = server["server"].removeprefix("https://").removesuffix(":6443")
        if "token" in user:
            return cls(address, ca, token=user["token"])
        names = ("client-certificate-data", "client-key-data")
        pem.write_bytes(b"".join(base64.b64decode(user[name]) for name in names))
        return cls(address, ca, certificate=pem)

    def send(self, method: str, path: str, body: object = None, kind: str = "json") -> Answer:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.certificate:
            context.load_cert_chain(self.certificate)
        headers = {"Content-Type": f"application/{kind}", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPSConnection(self.address, 6443, context=context, timeout=20)
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_object = content.startswith(b"{") and "watch=" not in path
        return Answer(answer.status, json.loads(content) if is_object else {})

    def request(
        self, name: str, pem: bytes, signer: str = CLIENT, usages: tuple[str, ...] = ()
    ) -> Answer:
        """Create a certificate request."""
        spec = {
            "request": base64.b64encode(pem).decode(),
            "signerName": signer,
            "usages": usages
            or ["digital signature", "key encipherment", USAGES.get(signer, "client auth")],
        }
        return self.send("POST", CSRS, {"metadata": {"name": name}, "spec": spec})

    def read_request(self, name: str) -> dict[str, Any]:
        answer = self.send("GET", f"{CSRS}/{name}")
        assert isinstance(answer.body, dict), answer
        return answer.body

    def is_approved(self, name: str) -> bool:
        conditions = self.read_request(name).get("status", {}).get("conditions", [])
        return any(condition["type"] == "Approved" for condition in conditions)


def make_client_request(
    node: str, key: ec.EllipticCurvePrivateKey | None = None, organization: str = "system:nodes"
) -> bytes:
    """A kubelet's request for a client certificate, PEM."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def refuse_to_render(folder: Path, _: Cluster) -> bytes:
    raise AssertionError(f"{folder} is a kustomization")


@dataclass
class Builder:
    """A state directory, and the bundles that are rendered from it."""

    directory: Path
    network: str
    programs: Path
    workers: tuple[str, ...]
    more: dict[str, Any] = field(default_factory=dict)  # other keys of cluster.yaml
    charts: RenderChart | None = None
    number: int = 0

    @property
    def cluster(self) -> Cluster:
        return Cluster.model_validate({**describe(self.network, self.workers), **self.more})

    @property
    def state(self) -> Path:
        return self.directory / "join.state"

    def build(self, now: datetime | None = None) -> "Build":
        """Render the bundles of all nodes, as a build at that time does."""
        self.number += 1
        inputs = Inputs(
            description=self.directory / "cluster.yaml", cache=Cache(self.directory / "cache")
        )
        project = make_project(self.cluster, inputs)
        with open_state(self.state, create=True) as state:
            moment = now or datetime.now(UTC)
            subnets = state.ensure_pod_subnets(
                self.workers, self.cluster.network.pod_cidr, self.cluster.network.pod_subnet_prefix
            )
            secrets = Secrets(
                state_id="0" * 64,
                pki=ensure_pki(state, project.plan, datetime.now(UTC)),
                pod_subnets=subnets,
                tokens=ensure_tokens(state, self.workers, moment, self.cluster.pki.token_days),
                encryption_keys=ensure_encryption_keys(state),
                initial_etcd_members=("cp1",),
            )
            cluster, read = read_addons(
                self.cluster, refuse_to_render, self.directory, charts=self.charts
            )
            assert not [each.text for each in read.problems if each.is_error]
            planned = make_plan(cluster, plan_addons(cluster, read.objects, {}))
            plan = assign_pod_subnets(planned, subnets)
            place = self.directory / f"build{self.number}"
            for node in plan.nodes:
                write_tree(render_node(plan, node, secrets), place / node.name)
                link_programs(place / node.name, self.programs)
        return Build(place, self.network, self.programs)

    def renew(self, *nodes: str) -> None:
        with open_state(self.state) as state:
            renew_tokens(state, nodes, datetime.now(UTC), self.cluster.pki.token_days)


@dataclass(frozen=True)
class Build:
    """The bundles of one build, each installed below its own directory."""

    directory: Path
    network: str
    programs: Path

    def root(self, node: str) -> Path:
        return self.directory / node / "rootfs"

    @property
    def host(self) -> Host:
        return Host(root=self.root("cp1"), address=f"{self.network}.1", programs=self.programs)

    def environment(self, node: str) -> dict[str, str]:
        return {
            **os.environ, "DESTDIR": str(self.root(node)), "MAX_PAUSE": "2", "INTERVAL": "0.5",
            "HOME": str(self.directory), "API_LOCAL": f"https://{self.network}.1:6443",
            "PATH": f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip

    def apply(self) -> str:
        """Run kube-apply.service; return what it printed."""
        done = subprocess.run(
            ["sh", self.root("cp1") / "opt/k8s/libexec/apply-addons.sh"],
            env=self.environment("cp1"), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def approve_once(self) -> str:
        """Run one check of kube-csr-approver.service; return what it printed."""
        done = subprocess.run(
            ["sh", self.root("cp1") / "opt/k8s/libexec/approve-csrs.sh", "--once"],
            env=self.environment("cp1"), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.stderr == "", done.stderr
        return done.stdout

    @contextmanager
    def approving(self) -> Iterator[Path]:
        """Run kube-csr-approver.service; yields its log."""
        log = self.directory / "approver.log"
        with log.open("a") as output:
            process = subprocess.Popen(
                ["sh", self.root("cp1") / "opt/k8s/libexec/approve-csrs.sh"],
                env=self.environment("cp1"), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield log
        finally:
            process.terminate()
            process.wait()

    def token(self, node: str) -> str:
        text = (self.root(node) / "etc/kubernetes/bootstrap.kubeconfig").read_text()
        return re.findall(r"token: (\S+)", text)[0]

    def thief(self, node: str) -> Client:
        """Somebody who has the bundle of a worker, and uses its bootstrap token."""
        return Client(f"{self.network}.1", self._ca(node), token=self.token(node))

    def kubelet(self, node: str) -> Client:
        """The kubelet of a node that has a certificate."""
        pki = self.root(node) / "var/lib/kubelet/pki"
        return Client(
            f"{self.network}.1", self._ca(node), certificate=pki / "kubelet-client-current.pem"
        )

    def _ca(self, node: str) -> Path:
        return self.root(node) / "etc/kubernetes/pki/ca.crt"

    def start_kubelet(self, node: str) -> subprocess.Popen[str]:
        """Run kubelet-join.sh, which ends when the kubelet would start."""
        log = self.directory / f"{node}.log"
        with log.open("a") as output:
            return subprocess.Popen(
                ["sh", self.root(node) / "opt/k8s/libexec/kubelet-join.sh", "true"],
                env=self.environment(node), stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

    def join(self, node: str) -> Client:
        """Start the kubelet, approve its request as kube-csr-approver does, and register."""
        process = self.start_kubelet(node)
        while process.poll() is None:
            self.approve_once()
        assert process.returncode == 0, self.log(node)
        self.register(node)
        return self.kubelet(node)

    def reason(self, node: str) -> str:
        """Why the kubelet waits."""
        path = self.root(node) / "run/kubelet-join/reason"
        return path.read_text() if path.exists() else ""

    def log(self, node: str) -> str:
        return (self.directory / f"{node}.log").read_text()

    def register(self, node: str, heartbeat: datetime | None = None) -> None:
        """Create the Node, or report that it lives, with the kubelet's own certificate."""
        client = self.kubelet(node)
        answer = client.send("POST", "/api/v1/nodes", {"metadata": {"name": node}})
        assert answer.status in {201, 409}, answer
        moment = (heartbeat or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": moment}
        info = dict.fromkeys(
            (
                "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "operatingSystem",
                "architecture", "containerRuntimeVersion", "kubeProxyVersion",
            ),
            "x",
        )  # fmt: skip
        status = {"conditions": [ready], "nodeInfo": {**info, "kubeletVersion": "v1.20.2"}}
        answer = client.send(
            "PATCH", f"/api/v1/nodes/{node}/status", {"status": status},
            kind="strategic-merge-patch+json",
        )  # fmt: skip
        assert isinstance(answer.body, dict), answer


def wait_until(what: str, holds: Callable[[], object], seconds: float = 180) -> None:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.3)


@dataclass
class ControlPlane:
    """etcd, API server and controller manager of the first build, and an administrator."""

    host: Host

    def start(self) -> None:
        host = self.host
        host.start_api()
        host.start("kube-controller-manager")

    def list_tokens(self) -> set[str]:
        """The ids of all bootstrap tokens in the cluster."""
        names = self.host.kubectl(
            "-n", "kube-system", "get", "secrets", "-o", "name", "--field-selector",
            "type=bootstrap.kubernetes.io/token",
        ).split()  # fmt: skip
        return {name.removeprefix("secret/bootstrap-token-") for name in names}

    def read_record(self) -> dict[str, str]:
        text = self.host.kubectl(
            "-n", "kube-system", "get", "configmap", "bundler-spent-tokens", "-o", "json"
        )
        found: dict[str, str] = json.loads(text).get("data", {})
        return found

    def delete_requests(self) -> None:
        self.host.kubectl("delete", "certificatesigningrequests", "--all")


@contextmanager
def run_control_plane(build: Build, *, elects_leader: bool = False) -> Iterator[ControlPlane]:
    """The control plane of a build, with the objects of its bundle applied, until the block ends."""
    control_plane = ControlPlane(build.host)
    control_plane.host.elects_leader = elects_leader
    try:
        control_plane.start()
        build.apply()
        yield control_plane
    finally:
        control_plane.host.stop()


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)
