"""kubelet-authorities.sh: a kubelet gets the trusted CAs and drops certificates of other CAs."""

import base64
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from support.rotated_cas import DROP, ISSUE, NOW, SETTLED, TRUST, ClusterCas
from support.shells import TEMPLATES, Sh

from bundler.pki import issuing

KUBERNETES_CA = ("kubernetes-ca",)


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> ClusterCas:
    return ClusterCas(tmp_path_factory.mktemp("cas"))


KUBECONFIG = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {}
    server: https://192.0.2.1:8443
  name: default-cluster
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
"""


@dataclass(frozen=True)
class Kubelet:
    """The files of a worker."""

    sh: Sh
    root: Path
    cas: ClusterCas

    @property
    def kubeconfig(self) -> Path:
        return self.root / "etc/kubernetes/kubelet.kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "var/lib/kubelet/pki"

    def prepare(self, stage: tuple[str, str]) -> None:
        """Install the bundle files of a stage."""
        signs, trusted = stage
        etc = self.root / "etc/kubernetes"
        (etc / "pki").mkdir(parents=True, exist_ok=True)
        (etc / "pki/ca-signing.crt").write_bytes(self.cas.encode_cas(KUBERNETES_CA, signs))
        (etc / "bootstrap.kubeconfig").write_text(KUBECONFIG.format(self.encoded(trusted)))
        env = self.root / "opt/k8s/bundle/node.env"
        env.parent.mkdir(parents=True, exist_ok=True)
        env.write_text("KUBELET_ROOT='/var/lib/kubelet'\n")

    def encoded(self, trusted: str) -> str:
        return base64.b64encode(self.cas.encode_cas(KUBERNETES_CA, trusted)).decode()

    def join(self, stage: tuple[str, str], *, days: int = 30) -> None:
        """Write the files that a kubelet writes when it joins."""
        self.pki.mkdir(parents=True, exist_ok=True)
        for kind in ("client", "server"):
            dated = self.pki / f"kubelet-{kind}-2026-01-01-00-00-00.pem"
            dated.write_bytes(self.cas.issue("kubernetes-ca", stage[0], "system:node:w1", days=days))  # fmt: skip
            current = self.pki / f"kubelet-{kind}-current.pem"
            current.unlink(missing_ok=True)
            current.symlink_to(dated)
        self.kubeconfig.write_text(KUBECONFIG.format(self.encoded(stage[1])))
        self.kubeconfig.chmod(0o600)

    def start(self) -> str:
        script = TEMPLATES / "worker/rootfs/opt/k8s/libexec/kubelet-authorities.sh"
        done = self.sh(script, DESTDIR=str(self.root))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def is_due(self) -> bool:
        script = TEMPLATES / "worker/rootfs/opt/k8s/libexec/kubelet-authorities.sh"
        return self.sh(script, "--is-due", DESTDIR=str(self.root)).returncode == 0

    def files(self) -> dict[str, bytes]:
        return {
            p.name: p.read_bytes() for p in (self.kubeconfig, *self.pki.glob("*")) if p.exists()
        }


@pytest.fixture
def kubelet(sh: Sh, tmp_path: Path, cas: ClusterCas) -> Kubelet:
    return Kubelet(sh, tmp_path, cas)


@pytest.mark.parametrize("days", [30, 0])
def test_certificates_of_the_current_ca_are_kept(kubelet: Kubelet, days: int) -> None:
    kubelet.prepare(SETTLED)
    assert kubelet.start() == ""  # the first start: no files yet
    kubelet.join(SETTLED, days=days)
    before = kubelet.files()
    assert kubelet.start() == ""
    assert kubelet.files() == before
    assert len(before) == 5


@pytest.mark.parametrize(("had", "has"), [(SETTLED, TRUST), (ISSUE, DROP)])
def test_a_kubelet_gets_the_trusted_cas_of_the_bundle(
    kubelet: Kubelet, had: tuple[str, str], has: tuple[str, str]
) -> None:
    kubelet.prepare(had)
    kubelet.join(had)
    kubelet.prepare(has)
    before = kubelet.files()
    assert "now trusts the CAs of bootstrap.kubeconfig" in kubelet.start()
    text = kubelet.kubeconfig.read_text()
    assert text == KUBECONFIG.format(kubelet.encoded(has[1]))
    assert kubelet.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert {name for name, content in kubelet.files().items() if before[name] != content} == {
        "kubelet.kubeconfig"
    }
    assert kubelet.start() == ""


@pytest.mark.parametrize("lost", ["client", "server"])
def test_certificates_of_another_ca_are_removed(kubelet: Kubelet, lost: str) -> None:
    kubelet.prepare(TRUST)
    kubelet.join(ISSUE)
    old = kubelet.pki / f"kubelet-{lost}-current.pem"
    old.unlink()
    old.write_bytes(kubelet.cas.issue("kubernetes-ca", "-", "system:node:w1"))
    kubelet.prepare(ISSUE)
    assert kubelet.is_due()
    assert "kubelet.kubeconfig" in kubelet.files()
    assert "requesting new ones" in kubelet.start()
    assert kubelet.files() == {}
    assert not kubelet.is_due()


def test_a_ca_with_the_same_name_but_another_key_is_another_ca(kubelet: Kubelet) -> None:
    kubelet.prepare(SETTLED)
    kubelet.join(SETTLED)
    (kubelet.root / "etc/kubernetes/pki/ca-signing.crt").write_bytes(
        issuing.encode_certificate(make_ca_with_same_name())
    )
    assert "requesting new ones" in kubelet.start()


def make_ca_with_same_name() -> x509.Certificate:
    return issuing.issue_ca("kubernetes-ca", "lab", issuing.make_key("ecdsa-p256"), NOW, 30)
