"""kubelet-join.sh: a kubelet starts with a certificate, which a node requests with a key that it keeps."""

import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from support.rotated_cas import DROP, ISSUE, NOW, SETTLED, TRUST, ClusterCas
from support.shells import SHELLS, TEMPLATES, Sh, link_parts, write_program

from bundler.pki import issuing

SCRIPT = TEMPLATES / "worker/rootfs/opt/k8s/libexec/kubelet-join.sh"
API = Path(__file__).parents[1] / "support/signing_api.py"
KUBERNETES_CA = ("kubernetes-ca",)
REFUSED = "error: You must be logged in to the server (Unauthorized)"
BOOTSTRAP = """\
apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: https://192.0.2.1:8443
    certificate-authority-data: {}
users:
- name: kubelet-bootstrap
  user:
    token: abcdef.0123456789abcdef
"""


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> ClusterCas:
    return ClusterCas(tmp_path_factory.mktemp("cas"))


@dataclass
class Worker:
    """A worker's files, an API that signs requests, and the processes of the script."""

    shell: list[str]
    root: Path
    cas: ClusterCas
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        return self.root / "etc/kubernetes/kubelet.kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "var/lib/kubelet/pki"

    @property
    def current(self) -> Path:
        return self.pki / "kubelet-client-current.pem"

    @property
    def api(self) -> Path:
        return self.root / "api"

    @property
    def requests(self) -> list[dict[str, object]]:
        return [yaml.safe_load(path.read_text()) for path in (self.api / "requests").glob("*")]

    @property
    def calls(self) -> list[str]:
        return (self.api / "calls").read_text().splitlines()

    @property
    def log(self) -> list[str]:
        return (self.root / "log").read_text().splitlines()

    @property
    def environment(self) -> dict[str, str]:
        return {"DESTDIR": str(self.root), "PATH": f"{self.root}/bin:/usr/bin:/bin"}

    def prepare(self, stage: tuple[str, str], *, ends: float = 30) -> None:
        """Install the bundle files of a stage; the token ends in so many days."""
        signs, trusted = stage
        etc = self.root / "etc/kubernetes"
        (etc / "pki").mkdir(parents=True, exist_ok=True)
        (etc / "pki/ca-signing.crt").write_bytes(self.cas.encode_cas(KUBERNETES_CA, signs))
        (etc / "bootstrap.kubeconfig").write_text(BOOTSTRAP.format(self.encoded(trusted)))
        bundle = self.root / "opt/k8s/bundle"
        if not bundle.exists():
            link_parts(self.root)
        (bundle / "node.env").write_text(
            "NODE='w1'\nKUBELET_ROOT='/var/lib/kubelet'\nCSR_API='certificates.k8s.io/v1'\n"
        )
        (bundle / "state.env").write_text(f"TOKEN_EXPIRES='{int(time.time() + ends * 86400)}'\n")
        write_program(self.root / "bin/kubectl", f'exec {sys.executable} {API} {self.api} "$@"\n')
        write_program(self.root / "bin/kubelet", f'echo "$*" >{self.root}/started\numask >>{self.root}/started\n')  # fmt: skip
        self.api.mkdir(exist_ok=True)

    def encoded(self, trusted: str) -> str:
        return base64.b64encode(self.cas.encode_cas(KUBERNETES_CA, trusted)).decode()

    def sign_with(self, rotation_id: str) -> None:
        issuer = self.cas.issuer("kubernetes-ca", rotation_id)
        key = issuer.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (self.api / "new").write_bytes(issuing.encode_certificate(issuer.certificate) + key)
        (self.api / "new").rename(self.api / "issuer.pem")

    def join(self, stage: tuple[str, str], *, days: int = 30) -> None:
        """Write the certificates of a kubelet that has joined."""
        self.pki.mkdir(parents=True, exist_ok=True)
        for kind in ("client", "server"):
            dated = self.pki / f"kubelet-{kind}-2026-01-01-00-00-00.pem"
            dated.write_bytes(self.cas.issue("kubernetes-ca", stage[0], "system:node:w1", days=days))  # fmt: skip
            current = self.pki / f"kubelet-{kind}-current.pem"
            current.unlink(missing_ok=True)
            current.symlink_to(dated)

    def begin(self) -> subprocess.Popen[str]:
        with (self.root / "log").open("a") as log:
            process = subprocess.Popen(
                [*self.shell, str(SCRIPT), "kubelet", "--v=2"],
                env=self.environment, stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self.running.append(process)
        return process

    def start(self) -> list[str]:
        """Run until the kubelet has started; return what the script said."""
        (self.root / "log").write_text("")
        (self.root / "started").unlink(missing_ok=True)
        assert self.begin().wait(120) == 0, self.log
        assert (self.root / "started").read_text().splitlines() == ["--v=2", "0022"]
        assert not (self.root / "run/kubelet-join/reason").exists()
        return self.log

    def wait(self) -> str:
        """Run until the script waits; return the reason."""
        self.begin()
        reason = self.root / "run/kubelet-join/reason"
        end = time.monotonic() + 60
        while not reason.exists() or not reason.read_text():
            assert time.monotonic() < end, self.log
            time.sleep(0.05)
        return reason.read_text()

    def kill(self) -> None:
        self.running[-1].kill()
        self.running[-1].wait()

    def is_due(self) -> bool:
        done = subprocess.run([*self.shell, SCRIPT, "--is-due"], env=self.environment, check=False)
        return done.returncode == 0

    def files(self) -> dict[str, bytes]:
        return {
            p.name: p.read_bytes() for p in (self.kubeconfig, *self.pki.glob("*")) if p.exists()
        }

    def issuer_of(self, path: Path) -> str:
        """The rotation id of the CA that signed a certificate."""
        units = x509.load_pem_x509_certificate(path.read_bytes()).issuer
        found = units.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return str(found[0].value) if found else "-"


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def worker(request: pytest.FixtureRequest, tmp_path: Path, cas: ClusterCas) -> Iterator[Worker]:
    made = Worker(request.param, tmp_path, cas)
    yield made
    for process in made.running:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_node_without_a_certificate_requests_one_with_its_token(worker: Worker) -> None:
    worker.prepare(SETTLED)
    worker.sign_with("-")
    said = worker.start()
    assert said[0].startswith("wrote kubelet.kubeconfig")
    assert said[1].startswith("requested a client certificate: node-csr-")
    assert said[-1].startswith("got a client certificate: ")
    assert set(worker.calls) == {"bootstrap get", "bootstrap create"}
    assert worker.current.is_symlink()
    key = serialization.load_pem_private_key(
        worker.current.read_bytes().partition(b"-----END CERTIFICATE-----\n")[2], None
    )
    certificate = x509.load_pem_x509_certificate(worker.current.read_bytes())
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=system:node:w1,O=system:nodes"
    assert worker.current.stat().st_mode & 0o777 == 0o600
    assert not (worker.pki / "kubelet-join.key").exists()
    (request,) = worker.requests
    assert request["apiVersion"] == "certificates.k8s.io/v1"
    assert request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    before = worker.files()
    assert worker.start() == []
    assert worker.files() == before


@pytest.mark.slow
def test_a_killed_node_continues_with_the_same_key_and_request(worker: Worker) -> None:
    worker.prepare(SETTLED)
    reason = worker.wait()
    assert "is not approved yet" in reason
    assert "bundler tokens renew w1" in reason
    worker.kill()
    key = (worker.pki / "kubelet-join.key").read_bytes()
    worker.sign_with("-")
    worker.start()
    assert len(worker.requests) == 1
    assert key in worker.current.read_bytes()


@pytest.mark.slow
def test_a_request_that_was_deleted_is_sent_again_for_the_same_key(worker: Worker) -> None:
    worker.prepare(SETTLED)
    worker.wait()
    worker.kill()
    (request,) = (worker.api / "requests").glob("*")
    request.unlink()
    worker.sign_with("-")
    worker.start()
    assert [path.name for path in (worker.api / "requests").glob("*")] == [request.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        (30, "it was used or revoked, or no control plane has a bundle with it yet"),
        (-3, "the bootstrap token of this bundle ended 3 days ago. Fix: bundler build"),
    ],
)
def test_a_refused_token_is_explained_once(worker: Worker, ends: float, reason: str) -> None:
    worker.prepare(SETTLED, ends=ends)
    (worker.api / "refused-bootstrap").write_text(REFUSED)
    assert reason in worker.wait()
    while worker.calls.count("bootstrap get") < 3:
        time.sleep(0.1)
    assert len([line for line in worker.log if line.startswith("waiting: ")]) == 1
    (worker.api / "refused-bootstrap").unlink()
    worker.sign_with("-")
    assert worker.running[-1].wait(20) == 0


@pytest.mark.slow
def test_an_api_that_does_not_answer_is_the_reason(worker: Worker) -> None:
    worker.prepare(SETTLED)
    (worker.api / "refused-bootstrap").write_text("x\nThe connection to the server was refused")
    assert worker.wait() == "The connection to the server was refused\n"


def test_a_certificate_for_another_key_is_refused(worker: Worker) -> None:
    worker.prepare(SETTLED)
    worker.sign_with("-")
    other = worker.cas.issue("kubernetes-ca", "-", "system:node:w1")
    encoded = base64.b64encode(other.partition(b"-----BEGIN EC")[0]).decode()
    write_program(worker.root / "bin/kubectl", f'printf "Approved {encoded}"\n')
    assert "is of another key" in worker.wait()
    assert not worker.current.exists()


@pytest.mark.slow
@pytest.mark.parametrize("days", [30, 0])
def test_certificates_of_the_current_ca_are_kept_until_they_end(worker: Worker, days: int) -> None:
    worker.prepare(SETTLED)
    worker.join(SETTLED, days=days)
    worker.sign_with("-")
    before = worker.current.read_bytes()
    worker.start()
    assert (worker.current.read_bytes() == before) is (days > 0)


def test_a_damaged_certificate_is_replaced_by_the_one_before(worker: Worker) -> None:
    worker.prepare(SETTLED)
    worker.join(SETTLED)
    before = worker.current.read_bytes()
    later = worker.pki / "kubelet-client-2026-02-02-00-00-00.pem"
    later.write_bytes(before[:100])
    worker.current.unlink()
    worker.current.symlink_to(later)
    worker.start()
    assert worker.current.read_bytes() == before
    assert worker.current.is_symlink()


@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_certificate_for_serving_is_removed(worker: Worker, left: int) -> None:
    """The kubelet does not write it to the disk at once, and does not start when it is damaged."""
    worker.prepare(SETTLED)
    worker.join(SETTLED)
    serving = worker.pki / "kubelet-server-current.pem"
    worker.start()
    assert serving.exists()
    target = serving.resolve()
    target.write_bytes(target.read_bytes()[:left])
    worker.start()
    assert not serving.is_symlink()
    assert not target.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("had", "has"), [(SETTLED, TRUST), (ISSUE, DROP)])
def test_a_kubelet_gets_the_trusted_cas_of_the_bundle(
    worker: Worker, had: tuple[str, str], has: tuple[str, str]
) -> None:
    worker.prepare(had)
    worker.join(had)
    worker.start()
    worker.prepare(has)
    before = worker.files()
    assert worker.start() == [
        "wrote kubelet.kubeconfig, with the server and the CAs of bootstrap.kubeconfig"
    ]
    document = yaml.safe_load(worker.kubeconfig.read_text())
    assert document["clusters"][0]["cluster"] == {
        "server": "https://192.0.2.1:8443",
        "certificate-authority-data": worker.encoded(has[1]),
    }
    assert document["users"][0]["user"]["client-key"] == str(worker.current)
    assert worker.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert {name for name, content in worker.files().items() if before[name] != content} == {
        "kubelet.kubeconfig"
    }
    assert worker.start() == []


@pytest.mark.slow
def test_a_certificate_of_a_replaced_ca_requests_the_next_one(worker: Worker) -> None:
    worker.prepare(TRUST)
    worker.join(TRUST)
    worker.prepare(ISSUE)
    worker.sign_with(ISSUE[0])
    assert worker.is_due()
    said = worker.start()
    assert said[1].endswith("is of a previous CA: requesting a new one")
    assert set(worker.calls) == {"kubelet get", "kubelet create"}
    assert worker.issuer_of(worker.current) == ISSUE[0]
    # the former client key is gone, and the kubelet requests a new certificate for serving by itself
    assert len(list(worker.pki.glob("*"))) == 2
    assert not worker.is_due()


@pytest.mark.slow
def test_a_kubelet_starts_with_its_former_certificate_while_nobody_signs_with_the_new_ca(
    worker: Worker,
) -> None:
    worker.prepare(TRUST)
    worker.join(TRUST)
    worker.prepare(ISSUE)
    worker.sign_with("-")
    assert worker.start()[-1].endswith("after 15 s: starting with this one")
    assert worker.issuer_of(worker.current) == "-"
    assert worker.is_due()
    worker.sign_with(ISSUE[0])
    worker.start()
    assert worker.issuer_of(worker.current) == ISSUE[0]
    assert not worker.is_due()


@pytest.mark.slow
def test_a_node_whose_former_ca_is_not_trusted_any_more_joins_with_its_token(
    worker: Worker,
) -> None:
    worker.prepare(TRUST)
    worker.join(TRUST)
    worker.prepare(DROP)
    worker.sign_with(DROP[0])
    (worker.api / "refused-kubelet").write_text(REFUSED)
    worker.start()
    assert "bootstrap create" in worker.calls
    assert worker.issuer_of(worker.current) == DROP[0]


def test_a_ca_with_the_same_name_but_another_key_is_another_ca(worker: Worker) -> None:
    worker.prepare(SETTLED)
    worker.join(SETTLED)
    assert not worker.is_due()
    (worker.root / "etc/kubernetes/pki/ca-signing.crt").write_bytes(
        issuing.encode_certificate(make_ca_with_same_name())
    )
    assert worker.is_due()


def make_ca_with_same_name() -> x509.Certificate:
    return issuing.issue_ca("kubernetes-ca", "lab", issuing.make_key("ecdsa-p256"), NOW, 30)


@pytest.mark.slow
def test_install_sh_prints_why_the_kubelet_waits(sh: Sh, worker: Worker) -> None:
    worker.prepare(SETTLED)
    reason = worker.wait()
    script = worker.root / "ready.sh"
    script.write_text(
        f"live={worker.root}\n. {TEMPLATES}/common/lib/transaction/ready.sh\n"
        "ready_active() { :; }\nhas_endpoint() { :; }\nready_kubelet kubelet.service\n"
    )
    done = sh(script)
    assert (done.returncode, done.stdout) == (2, reason)


def test_wrong_usage_is_refused(sh: Sh, worker: Worker) -> None:
    worker.prepare(SETTLED)
    assert sh(SCRIPT, DESTDIR=str(worker.root)).returncode == 2
