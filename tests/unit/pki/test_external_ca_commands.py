"""The commands certs request and certs import, up to the trees of the hosts."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import run_bundler
from support.external_ca_site import CA_NAMES, names_of
from support.json_shapes import read_shape
from support.offline_root import OfflineRoot, openssl

PINS = Path(__file__).parents[2] / "golden/pins.yaml"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bundler(description: Path) -> Run:
    def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run_bundler(
            [*map(str, words), "--pins", PINS],
            cwd=description.parent, capture_output=True, text=True, check=False, input="",
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def list_certificates(description: Path, *words: str) -> str:
    return run_bundler(
        ["certs", "list", *words],
        cwd=description.parent, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.mark.slow
def test_requests_are_signed_imported_and_rendered(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    said = bundler("certs", "request", "-o", "out")
    assert [line.split()[1] for line in said.stdout.splitlines()] == [
        f"out/{name}.csr" for name in CA_NAMES
    ]
    listed = list_certificates(description)
    assert listed.count("requested") == 3
    rows = read_shape(list_certificates(description, "--json"), "certs-list")["requests"]
    assert {row["path"] for row in rows} == {f"pki/{n}" for n in CA_NAMES}

    for words in (("build", "-o", "dist", "--offline"), ("render", "--text-only", "-o", "trees")):
        waits = bundler(*words, code=4)
        assert "3 certificates that must be signed elsewhere: not imported yet" in waits.stderr
    assert not (description.parent / "dist").exists()

    root.follow(description.parent / "out", root=root.file)
    pending = bundler("certs", "import", "out", code=4)
    assert pending.stderr.count("is missing: import the complete chain up to the root") == 3
    dry = bundler("certs", "import", "out", "--root", root.file, "--dry-run", "--json")
    found = read_shape(dry.stdout, "certs-import")
    assert (found["taken"], len(found["certificates"])) == (False, 3)
    fingerprint = openssl("x509", "-in", root.file, "-noout", "-fingerprint", "-sha256")
    assert found["roots"][0]["sha256"] == fingerprint.strip().partition("=")[2]
    assert list_certificates(description).count("requested") == 3

    bundler("certs", "import", "out", "--root", root.file)
    bundler("render", "--text-only", "-o", "trees")
    assert bundler("certs", "request", "-o", "more").stdout == ""
    assert not (description.parent / "more").exists()
    assert "external CA, signed elsewhere for a key made here" in list_certificates(description)


@pytest.mark.slow
def test_a_ca_is_imported_with_a_passphrase_file(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    given = root.issue_ca("x")
    key = tmp_path / "x.enc"
    openssl(
        "ec", "-aes256", "-in", given.with_suffix(".key"), "-out", key, "-passout", "pass:so so"
    )
    (tmp_path / "passphrase").write_text("so so\n")
    words = ("certs", "import", "--authority", "kubernetes-ca", "--cert", given, "--key", key)
    more = ("--chain", root.file, "--passphrase-file", tmp_path / "passphrase")
    bundler(*words, *more, "--dry-run")
    assert not (description.parent / "lab.state").exists()
    bundler(*words, *more)
    assert "external CA, imported from files" in list_certificates(description)
    again = bundler(*words, *more, code=4)
    assert "already exists" in again.stderr
    bundler("render", "--text-only", "-o", "trees")


@pytest.mark.parametrize(
    "words",
    [
        ("import",),
        ("import", "x", "--key", "y"),
        ("import", "x", "--authority", "kubernetes-ca", "--cert", "y"),
        ("import", "--authority", "kubernetes-ca"),
        ("import", "--authority", "ca", "--cert", "y"),
        ("request", "--authority", "ca"),
    ],
)
def test_an_invalid_command_line_is_refused(bundler: Run, words: list[str]) -> None:
    assert "error: " in bundler("certs", *words, code=2).stderr


@pytest.mark.slow
def test_users_cannot_be_created_if_the_ca_key_is_elsewhere(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    bundler("certs", "request", "--leaves", "-o", "out")
    signers = {name.replace("-", "_"): root.issue_ca(name) for name in CA_NAMES}
    root.follow(description.parent / "out", **signers)
    bundler("certs", "import", "out", *signers.values(), "--root", root.file)
    done = bundler("admin", "create", "--name", "alice", "-o", "alice", code=4)
    assert "the key of kubernetes-ca is not in the state directory" in done.stderr
    assert not (description.parent / "alice").exists()
    assert "external CA, whose key is elsewhere" in list_certificates(description)


@pytest.mark.slow
def test_only_kubeconfigs_for_people_include_the_root(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    given = root.issue_ca("x")
    bundler(
        "certs", "import", "--authority", "kubernetes-ca", "--cert", given,
        "--key", given.with_suffix(".key"), "--chain", root.file,
    )  # fmt: skip
    bundler("render", "--text-only", "-o", "trees")
    held = {}
    for path in (description.parent / "trees/master1").rglob("*.kubeconfig"):
        data = next(
            line.split()[1]
            for line in path.read_text().splitlines()
            if "certificate-authority-data" in line
        )
        held[path.stem] = len(names_of(base64.b64decode(data)))
    programs = ("controller-manager", "scheduler", "csr-approver", "node-remover", "node-labeler")
    assert held == {"admin": 2} | dict.fromkeys(programs, 1)
    bundler("admin", "create", "--name", "alice", "-o", "alice.kubeconfig")
    assert "certificate-authority-data" in (description.parent / "alice.kubeconfig").read_text()
