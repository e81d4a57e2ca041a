"""diagnose.sh collects what helps, and no secrets."""

import re
import tarfile
from pathlib import Path

import pytest
from support.bundle_secrets import SECRET_FILES, list_secrets
from support.fake_host import FakeHost, make_host
from support.shells import Sh, write_program
from support.trees import Trees

pytestmark = pytest.mark.slow


@pytest.fixture
def host(sh: Sh, trees: Trees, tmp_path: Path) -> FakeHost:
    made = make_host(sh, trees / "master1", tmp_path / "host")
    done = made.install()
    assert done.returncode == 0, done.stderr
    for program in ("kubectl", "docker", "journalctl", "ip", "iptables-save", "nft"):
        write_program(made.directory / "bin" / program, "")
    return made


def diagnose(host: FakeHost, *arguments: str) -> dict[str, str]:
    """Path → content of each file in the tarball."""
    output = host.directory / "diagnose.tar.gz"
    done = host.sh(
        host.root / "opt/k8s/bundle/diagnose.sh", "-o", str(output), *arguments,
        DESTDIR=str(host.root), PATH=f"{host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with tarfile.open(output) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
            if member.isreg()
        }


def test_no_secret_of_the_bundle_is_in_the_tarball(host: FakeHost) -> None:
    """Not when complete files are printed, and not when single lines are, as at the end of a journal."""
    with (host.root / "etc/kubernetes/pki/sa.key").open("a") as key:
        key.write(f"{'abcdefghij' * 6}\n")  # a line of a key may have no digit
    secrets = list_secrets(host.bundle) | {"abcdefghij" * 6}
    assert len(secrets) > 30
    leak = host.directory / "leak"
    lines = "".join(f"x {secret}.\n" for secret in sorted(secrets))
    complete = "".join(
        path.read_text() for p in SECRET_FILES for path in sorted(host.bundle.rglob(p))
    )
    leak.write_text(lines + complete)
    for program in ("journalctl", "kubectl", "docker", "dmesg"):
        write_program(host.directory / "bin" / program, f"cat {leak}\n")
    found = diagnose(host)
    for path, text in found.items():
        for secret in secrets:
            assert secret not in text, f"{path}: {secret}"
    assert "[masked" in found["units/kube-apiserver.service.journal"]


LOOKS_SECRET = """\
GET /api Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl
using token abcdef.0123456789abcdef to join
proxy http://alice:hunter2222@proxy.example:3128 and http://bob:a@hunter2222@proxy.example/x
"password": "hunter2222", "passwd": "a hunter2222"
TOKEN=hunter2222 --client-secret=hunter2222 auth_pass hunter2222
Authorization: Basic aHVudGVyMjIyMg==
{"auths": {"r.example": {"auth": "aHVudGVyMjIyMg=="}}}
tls.key: LS0taHVudGVyMjIyMgaHVudGVyMjIyMg
-----BEGIN CERTIFICATE-----MIIx-----END CERTIFICATE----------BEGIN PRIVATE KEY-----
aHVudGVyMjIyMg
-----END PRIVATE KEY-----
and this stays: a=1 sha256:0123456789abcdef
"""


def test_text_that_looks_like_a_secret_is_redacted(host: FakeHost) -> None:
    write_program(host.directory / "bin/journalctl", f"cat <<'END'\n{LOOKS_SECRET}END\n")
    text = diagnose(host)["units/etcd.service.journal"]
    for secret in ("eyJhbGci", "abcdef.0123456789abcdef", "hunter2222", "aHVudGVyMjIyMg"):
        assert secret not in text, text
    assert text.endswith("and this stays: a=1 sha256:0123456789abcdef\n")
    assert text.count("\n") == LOOKS_SECRET.count("\n") - 2


def test_units_files_certificates_and_generations_are_collected(host: FakeHost) -> None:
    failures = host.root / "var/lib/bundler/failures"
    failures.mkdir()
    (failures / "3").write_text("generation 3 was not healthy\ntoken: abcdef.0123456789abcdef\n")
    found = diagnose(host, "--lines", "20")
    assert found["failures/3.txt"].startswith("generation 3 was not healthy\n")
    assert "0123456789abcdef" not in found["failures/3.txt"]
    assert "NODE='master1'" in found["node.env"]
    assert "healthy" in found["generations.txt"]
    assert (
        "ExecStart=/opt/k8s/libexec/etcd-start.sh" in found["files/etc/systemd/system/etcd.service"]
    )
    assert re.search(
        r"^600 \S+ \d+ .*/etc/kubernetes/pki/ca.key$", found["files.txt"], re.MULTILINE
    )
    assert "notAfter=" in found["certificates.txt"]
    assert "files/etc/kubernetes/pki/ca.key" not in found
    (host.root / "etc/etcd/pki/ca.crt").unlink()
    assert "missing /etc/etcd/pki/ca.crt" in diagnose(host)["files.txt"]
