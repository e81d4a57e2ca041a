"""Authorities that are given as files, and the commands for all of it."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from support.command import run_bundler
from support.external_ca_cases import AUTHORITIES, Site, make_own_site
from support.offline_root import OfflineRoot, openssl
from support.pki_cases import make_plan

from bundler.errors import ConfigError, PkiError
from bundler.pki.certs import list_state

PINS = Path(__file__).parents[2] / "golden/pins.yaml"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_own_site(tmp_path)


def names_of(pem: bytes) -> list[str]:
    return [one.subject.rfc4514_string() for one in x509.load_pem_x509_certificates(pem)]


def test_an_intermediate_with_its_key_signs_from_then_on(site: Site) -> None:
    given = site.root.authority("cluster seven")
    report = site.give("kubernetes-ca", given, chain=site.root.file)
    assert report.notes == ()
    assert len(report.roots) == 1
    made = site.build()
    assert names_of(made.anchors["kubernetes-ca"]) == ["CN=cluster seven,O=Bank"]
    assert names_of(made.servers_anchors)[1:] == ["CN=Bank Root,O=Bank"]
    assert names_of(made.anchors["etcd-ca"]) == ["CN=etcd-ca,O=lab"]
    file = site.directory / "api.pem"
    file.write_bytes(made.nodes["master1"]["apiserver"].certificate_pem)
    openssl("verify", "-x509_strict", "-CAfile", site.root.file, "-untrusted", file, file)
    modes = {path.stat().st_mode & 0o777 for path in (site.state / "pki").rglob("*.pem")}
    assert modes == {0o600}


def test_a_root_with_its_key_is_taken_with_a_warning(site: Site) -> None:
    report = site.give("etcd-ca", site.root.file)
    root, deep = report.notes
    assert "etcd-ca is a root (Bank Root): the cluster believes everything" in root
    assert "may sign authorities in turn" in deep
    made = site.build()
    assert names_of(made.nodes["master1"]["etcd-server"].certificate_pem) == ["CN=master1"]


def test_one_authority_for_all(tmp_path: Path) -> None:
    site = make_own_site(tmp_path, make_plan(masters=1, workers=1, authorities="single"))
    with pytest.raises(ConfigError, match="expected kubernetes-ca"):
        site.give("etcd-ca", site.root.file)
    site.give("kubernetes-ca", site.root.authority("all of it"))
    made = site.build()
    assert set(made.anchors.values()) == {made.authorities["kubernetes-ca"].certificate_pem}


def test_a_partial_chain_is_stated(site: Site) -> None:
    (note,) = site.give("kubernetes-ca", site.root.authority("x")).notes
    assert "the chain of kubernetes-ca is partial: the certificate of CN=Bank Root,O=Bank" in note
    assert site.build().servers_anchors == site.build().anchors["kubernetes-ca"]


@pytest.mark.parametrize("key", ["ec", "p384", "rsa:2048", "rsa:4096"])
def test_keys_that_kubernetes_takes(site: Site, key: str) -> None:
    site.give("kubernetes-ca", site.root.authority("x", key=key), chain=site.root.file)
    made = site.build()
    file, above = site.directory / "leaf.pem", site.directory / "above.pem"
    file.write_bytes(made.cluster["admin"].certificate_pem)
    above.write_bytes(made.anchors["kubernetes-ca"])
    openssl("verify", "-x509_strict", "-partial_chain", "-CAfile", above, file)


@pytest.mark.parametrize(
    ("key", "said"),
    [("p521", "ECDSA on secp521r1"), ("rsa:1024", "RSA of 1024 bits"), ("ed25519", "Ed25519")],
)
def test_keys_that_not_every_program_takes_are_refused(site: Site, key: str, said: str) -> None:
    with pytest.raises(PkiError, match=said):
        site.give("kubernetes-ca", site.root.authority("x", key=key))
    assert not (site.state / "pki/kubernetes-ca").exists()


@pytest.mark.parametrize("form", ["-traditional", "-v2", "DER"])
def test_an_encrypted_key_is_opened_and_kept_decrypted_for_its_owner_alone(
    site: Site, form: str
) -> None:
    given = site.root.authority("x")
    plain, key = given.with_suffix(".key"), site.directory / "encrypted.key"
    how = {
        "-traditional": ("ec", "-aes256"),
        "-v2": ("pkcs8", "-topk8", "-v2", "aes-256-cbc"),
        "DER": ("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-outform", "DER"),
    }[form]
    openssl(*how, "-in", plain, "-out", key, "-passout", "pass:open sesame")
    for wrong in ("", "open Sesame"):
        with pytest.raises(PkiError, match="or the passphrase is wrong"):
            site.give("kubernetes-ca", given, key=key, passphrase=wrong)
    site.give("kubernetes-ca", given, key=key, passphrase="open sesame")
    stored = site.state / "pki/kubernetes-ca/key.pem"
    assert openssl("pkey", "-in", stored) == openssl("pkey", "-in", plain)
    assert stored.stat().st_mode & 0o777 == 0o600
    assert b"sesame" not in b"".join(site.read().values())
    site.build()


CA = "basicConstraints=critical,CA:TRUE,pathlen:0\n"
SIGNS = "keyUsage=critical,keyCertSign,cRLSign\n"


@pytest.mark.parametrize(
    ("extensions", "fault"),
    [
        ("basicConstraints=CA:FALSE", "it is no authority"),
        (f"{CA}keyUsage=digitalSignature", "may not sign certificates"),
        (f"{CA}{SIGNS}extendedKeyUsage=clientAuth", "extendedKeyUsage lacks serverAuth"),
        (f"{CA}{SIGNS}nameConstraints=permitted;DNS:bank", "name constraints of x refuse master1"),
    ],
)
def test_what_cannot_be_an_authority_is_refused(site: Site, extensions: str, fault: str) -> None:
    with pytest.raises(PkiError, match=fault):
        site.give("kubernetes-ca", site.root.authority("x", extensions=extensions))
    assert site.read().keys() <= {".lock"}


def test_a_key_of_another_certificate_is_refused(site: Site) -> None:
    given, other = site.root.authority("x"), site.root.authority("y").with_suffix(".key")
    with pytest.raises(PkiError, match=r"y\.key is not its key"):
        site.give("kubernetes-ca", given, key=other)


def test_an_authority_of_a_short_life_cuts_what_it_signs(site: Site) -> None:
    (note,) = site.give(
        "kubernetes-ca", site.root.authority("x", days=100), chain=site.root.file
    ).notes
    assert "kubernetes-ca ends on" in note
    assert "sooner than the 365 days of pki.days" in note
    made = site.build()
    assert made.cluster["admin"].not_after == made.authorities["kubernetes-ca"].not_after
    assert any("and its new certificates with it" in text for text in made.notes)


def test_a_root_that_ends_soon_is_told_and_listed(tmp_path: Path) -> None:
    site = make_own_site(tmp_path)
    site.root = OfflineRoot(tmp_path / "short", days=40)
    notes = site.give("kubernetes-ca", site.root.authority("x"), chain=site.root.file).notes
    assert [note for note in notes if "Bank Root, above kubernetes-ca, ends on" in note]
    first = list_state(site.state, datetime.now(UTC))[0]
    assert (first.path, first.note) == ("pki/kubernetes-ca/chain.pem", "above kubernetes-ca")
    assert first.days_left in {39, 40}


def test_one_authority_in_two_places_is_refused(site: Site) -> None:
    given = site.root.authority("x")
    site.give("kubernetes-ca", given)
    with pytest.raises(PkiError, match="it is the same as kubernetes-ca"):
        site.give("etcd-ca", given)


def test_an_authority_that_is_there_is_never_replaced(site: Site) -> None:
    site.build()
    before = site.read()
    with pytest.raises(PkiError, match="kubernetes-ca is there already") as caught:
        site.give("kubernetes-ca", site.root.authority("x"))
    assert "new, empty state directory" in caught.value.hint
    assert site.read() == before


def test_an_authority_that_was_asked_for_comes_back_by_its_request(site: Site) -> None:
    site.request()
    with pytest.raises(PkiError, match="comes by a request"):
        site.give("kubernetes-ca", site.root.authority("x"))


def test_its_renewed_certificate_is_taken_and_nothing_else_changes(site: Site) -> None:
    given = site.root.authority("x", days=400)
    site.give("kubernetes-ca", given, chain=site.root.file)
    site.build()
    before = site.read()
    for renewed in (site.root.authority("y"), site.root.issue("x2", "/CN=x2", f"{CA}{SIGNS}")):
        with pytest.raises(PkiError, match="it is not kubernetes-ca of .* renewed"):
            site.give("kubernetes-ca", renewed, has_key=False)
    renewed = site.root.sign(given.with_suffix(".csr"), f"{CA}{SIGNS}", days=4000)
    with pytest.raises(PkiError, match="is there already"):
        site.give("kubernetes-ca", renewed)
    site.give("kubernetes-ca", renewed, has_key=False, chain=site.root.file)
    assert site.build(later=timedelta(days=100)).notes == ()
    after = site.read()
    assert {name for name in before if before[name] != after[name]} == {
        "pki/kubernetes-ca/cert.pem"
    }


def test_what_it_needs_is_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its private key is needed, too"):
        site.give("kubernetes-ca", site.root.authority("x"), has_key=False)
    with pytest.raises(PkiError, match="cannot be read: No such file"):
        site.give("kubernetes-ca", tmp_path / "none.crt")
    (tmp_path / "empty.crt").write_text("")
    with pytest.raises(PkiError, match="no certificate in it"):
        site.give("kubernetes-ca", tmp_path / "empty.crt")


def test_a_lost_authority_is_not_replaced_by_one_that_is_given(site: Site) -> None:
    site.build()
    shutil.rmtree(site.state / "pki/kubernetes-ca")
    with pytest.raises(PkiError, match="missing, but what was made after it"):
        site.give("kubernetes-ca", site.root.authority("x"))


# The commands


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


def test_from_a_request_to_the_trees_of_the_hosts(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    said = bundler("certs", "request", "-o", "out")
    assert [line.split()[1] for line in said.stdout.splitlines()] == [
        f"out/{name}.csr" for name in AUTHORITIES
    ]
    listed = list_certificates(description)
    assert listed.count("requested") == 3
    rows = json.loads(list_certificates(description, "--json"))
    assert {row["path"] for row in rows if row.get("requested")} == {
        f"pki/{n}" for n in AUTHORITIES
    }

    for words in (("build", "-o", "dist", "--offline"), ("render", "--text-only", "-o", "trees")):
        waits = bundler(*words, code=4)
        assert "waits for 3 certificates that are signed elsewhere" in waits.stderr
    assert not (description.parent / "dist").exists()

    root.follow(description.parent / "out", root=root.file)
    lacking = bundler("certs", "import", "out", code=4)
    assert lacking.stderr.count("is lacking: give all up to the root") == 3
    dry = bundler("certs", "import", "out", "--root", root.file, "--dry-run", "--json")
    found = json.loads(dry.stdout)
    assert (found["taken"], len(found["certificates"])) == (False, 3)
    fingerprint = openssl("x509", "-in", root.file, "-noout", "-fingerprint", "-sha256")
    assert found["roots"][0]["sha256"] == fingerprint.strip().partition("=")[2]
    assert list_certificates(description).count("requested") == 3

    bundler("certs", "import", "out", "--root", root.file)
    bundler("render", "--text-only", "-o", "trees")
    assert bundler("certs", "request", "-o", "more").stdout == ""
    assert not (description.parent / "more").exists()
    assert "own authority, signed elsewhere for a key made here" in list_certificates(description)


def test_an_authority_from_files_with_its_passphrase_in_a_file(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    given = root.authority("x")
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
    assert "own authority, given as files" in list_certificates(description)
    again = bundler(*words, *more, code=4)
    assert "is there already" in again.stderr
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
def test_a_command_line_that_cannot_be_meant_is_explained(bundler: Run, words: list[str]) -> None:
    assert "error: " in bundler("certs", *words, code=2).stderr


def test_users_cannot_be_made_where_the_key_is_elsewhere(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    bundler("certs", "request", "--leaves", "-o", "out")
    signers = {name.replace("-", "_"): root.authority(name) for name in AUTHORITIES}
    root.follow(description.parent / "out", **signers)
    bundler("certs", "import", "out", *signers.values(), "--root", root.file)
    done = bundler("admin", "create", "--name", "alice", "-o", "alice", code=4)
    assert "the key of kubernetes-ca is not in the state directory" in done.stderr
    assert not (description.parent / "alice").exists()
    assert "own authority, whose key is elsewhere" in list_certificates(description)


def test_kubeconfigs_for_people_hold_the_root_and_those_of_programs_do_not(
    bundler: Run, description: Path, tmp_path: Path
) -> None:
    root = OfflineRoot(tmp_path / "bank")
    given = root.authority("x")
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
    assert held == {"admin": 2, "controller-manager": 1, "scheduler": 1, "csr-approver": 1}
    bundler("admin", "create", "--name", "alice", "-o", "alice.kubeconfig")
    assert "certificate-authority-data" in (description.parent / "alice.kubeconfig").read_text()
