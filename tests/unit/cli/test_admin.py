"""Access for people: kubeconfigs for users, and PKCS#12 for a browser."""

import base64
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.command import run_bundler

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.pki.cluster_pki import ensure_pki
from bundler.state.directory import open_state

PINS = Path(__file__).parents[2] / "golden" / "pins.yaml"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bundler(description: Path) -> Run:
    with open_state(description.parent / "lab.state", create=True) as state:
        ensure_pki(state, make_plan(load_cluster(description).cluster), datetime.now(UTC))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_bundler(
            ["admin", *arguments, "--pins", str(PINS)], cwd=description.parent, text=True
        )

    return run


def load_ca(site: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(
        (site / "lab.state/pki/kubernetes-ca/cert.pem").read_bytes()
    )


def test_a_user_gets_a_kubeconfig_that_ends_after_the_given_days(
    bundler: Run, description: Path
) -> None:
    done = bundler("create", "--name", "alice", "--group", "dev", "--days", "30")
    assert done.returncode == 0, done.stderr
    path = description.parent / "alice.kubeconfig"
    assert path.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(path.read_text())
    user = config["users"][0]["user"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(user["client-certificate-data"]))
    certificate.verify_directly_issued_by(load_ca(description.parent))
    subject = {a.oid: a.value for a in certificate.subject}
    assert subject == {NameOID.COMMON_NAME: "alice", NameOID.ORGANIZATION_NAME: "dev"}
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left < timedelta(days=30, minutes=1)
    assert config["clusters"][0]["cluster"]["server"] == "https://172.30.20.250:8443"


@pytest.mark.parametrize(
    "arguments", [("--name", "system:admin"), ("--name", "bob", "--group", "system:masters")]
)
def test_names_that_are_reserved_for_kubernetes_are_refused(
    bundler: Run, description: Path, arguments: tuple[str, ...]
) -> None:
    done = bundler("create", *arguments)
    assert done.returncode == 2
    assert "reserved for Kubernetes" in done.stderr
    assert not list(description.parent.glob("*.kubeconfig"))


def test_the_hint_for_the_masters_group_names_the_option(bundler: Run) -> None:
    done = bundler("create", "--name", "bob", "--group", "system:masters")
    assert "for system:masters give --break-glass" in done.stderr


def test_a_break_glass_kubeconfig_is_in_the_masters_group(bundler: Run, description: Path) -> None:
    done = bundler("create", "--name", "repair", "--break-glass", "--days", "1")
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((description.parent / "repair.kubeconfig").read_text())
    pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    certificate = x509.load_pem_x509_certificate(pem)
    assert {a.value for a in certificate.subject} == {"repair", "system:masters"}
    assert certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=1, minutes=1)


def test_break_glass_takes_no_other_group(bundler: Run, description: Path) -> None:
    done = bundler("create", "--name", "repair", "--break-glass", "--group", "dev")
    assert done.returncode == 2
    assert "leave out --group" in done.stderr
    assert not list(description.parent.glob("*.kubeconfig"))


def read_admin(site: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((site / "lab.state/pki/admin/cert.pem").read_bytes())


def test_a_revoked_administrator_gets_another_group_and_key(
    bundler: Run, description: Path
) -> None:
    site = description.parent
    assert bundler("create", "--name", "alice").returncode == 0  # makes the state
    old = read_admin(site)
    done = bundler("revoke")
    assert done.returncode == 0, done.stderr
    group = (site / "lab.state/admin-group").read_text().strip()
    assert f"the administrator's group is now {group}" in done.stderr
    new = read_admin(site)
    assert {a.value for a in new.subject} == {"kubernetes-admin", group}
    assert group != "bundler:cluster-admins"
    assert new.public_key() != old.public_key()
    (kept,) = (site / "lab.state/archive").glob("*/pki/admin/cert.pem")
    assert x509.load_pem_x509_certificate(kept.read_bytes()) == old
    assert bundler("create", "--name", "bob").returncode == 0
    assert read_admin(site) == new  # a build does not issue it again


def test_a_cluster_without_a_state_has_no_administrator_to_revoke(
    bundler: Run, description: Path
) -> None:
    shutil.rmtree(description.parent / "lab.state")
    done = bundler("revoke")
    assert done.returncode == 4
    assert "not a state directory" in done.stderr
    assert not (description.parent / "lab.state").exists()


def test_an_existing_file_is_not_overwritten(bundler: Run, description: Path) -> None:
    (description.parent / "alice.kubeconfig").write_text("mine")
    assert bundler("create", "--name", "alice").returncode == 6
    assert (description.parent / "alice.kubeconfig").read_text() == "mine"


def test_the_pkcs12_file_opens_only_with_its_password(bundler: Run, description: Path) -> None:
    (description.parent / "password").write_text("correct horse\n")
    done = bundler("export", "--p12", "admin.p12", "--password-file", "password")
    assert done.returncode == 0, done.stderr
    path = description.parent / "admin.p12"
    assert path.stat().st_mode & 0o777 == 0o600
    key, certificate, others = pkcs12.load_key_and_certificates(path.read_bytes(), b"correct horse")
    assert key is not None
    assert certificate is not None
    assert {a.value for a in certificate.subject} == {"kubernetes-admin", "bundler:cluster-admins"}
    assert others == [load_ca(description.parent)]
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_key_and_certificates(path.read_bytes(), b"wrong horse")


def test_a_short_password_is_refused_and_not_printed(bundler: Run, description: Path) -> None:
    (description.parent / "password").write_text("short\n")
    done = bundler("export", "--p12", "admin.p12", "--password-file", "password")
    assert done.returncode == 2
    assert "less than 8" in done.stderr
    assert "short" not in done.stdout + done.stderr
    assert not (description.parent / "admin.p12").exists()
