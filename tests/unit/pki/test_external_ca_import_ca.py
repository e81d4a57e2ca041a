"""Import of a CA from files, with its key."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.external_ca_site import CA, SIGNS, Site, make_site, names_of
from support.offline_root import OfflineRoot, openssl
from support.pki_plans import make_plan

from bundler.errors import ConfigError, PkiError
from bundler.pki.inventory import list_state_certificates

PINS = Path(__file__).parents[2] / "golden/pins.yaml"
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_an_imported_intermediate_signs_all_certificates(site: Site) -> None:
    certificate = site.root.issue_ca("cluster seven")
    report = site.import_ca("kubernetes-ca", certificate, chain=site.root.file)
    assert report.notes == ()
    assert len(report.roots) == 1
    made = site.build()
    assert names_of(made.trust.by_ca["kubernetes-ca"]) == ["CN=cluster seven,O=Bank"]
    assert names_of(made.trust.servers)[1:] == ["CN=Bank Root,O=Bank"]
    assert names_of(made.trust.by_ca["etcd-ca"]) == ["CN=etcd-ca,O=lab"]
    file = site.directory / "api.pem"
    file.write_bytes(made.nodes["master1"]["apiserver"].certificate_pem)
    openssl("verify", "-x509_strict", "-CAfile", site.root.file, "-untrusted", file, file)
    modes = {path.stat().st_mode & 0o777 for path in (site.state / "pki").rglob("*.pem")}
    assert modes == {0o600}


def test_a_root_is_imported_with_a_warning(site: Site) -> None:
    report = site.import_ca("etcd-ca", site.root.file)
    root, deep = report.notes
    assert "etcd-ca is a root (Bank Root): the cluster trusts everything" in root
    assert "may sign further CAs" in deep
    made = site.build()
    assert names_of(made.nodes["master1"]["etcd-server"].certificate_pem) == ["CN=master1"]


def test_a_single_ca_is_used_for_everything(tmp_path: Path) -> None:
    site = make_site(tmp_path, make_plan(masters=1, workers=1, authorities="single"))
    with pytest.raises(ConfigError, match="expected kubernetes-ca"):
        site.import_ca("etcd-ca", site.root.file)
    site.import_ca("kubernetes-ca", site.root.issue_ca("all of it"))
    made = site.build()
    assert set(made.trust.by_ca.values()) == {made.cas["kubernetes-ca"].certificate_pem}


def test_a_partial_chain_causes_a_warning(site: Site) -> None:
    (note,) = site.import_ca("kubernetes-ca", site.root.issue_ca("x")).notes
    assert "the chain of kubernetes-ca is partial: the certificate of CN=Bank Root,O=Bank" in note
    assert site.build().trust.servers == site.build().trust.by_ca["kubernetes-ca"]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ec", "p384", "rsa:2048", "rsa:4096"])
def test_supported_kinds_of_key_are_imported(site: Site, key: str) -> None:
    site.import_ca("kubernetes-ca", site.root.issue_ca("x", key=key), chain=site.root.file)
    made = site.build()
    file, above = site.directory / "leaf.pem", site.directory / "above.pem"
    file.write_bytes(made.cluster["admin"].certificate_pem)
    above.write_bytes(made.trust.by_ca["kubernetes-ca"])
    openssl("verify", "-x509_strict", "-partial_chain", "-CAfile", above, file)


@pytest.mark.parametrize(
    ("key", "said"),
    [("p521", "ECDSA on secp521r1"), ("rsa:1024", "RSA of 1024 bits"), ("ed25519", "Ed25519")],
)
def test_unsupported_kinds_of_key_are_refused(site: Site, key: str, said: str) -> None:
    with pytest.raises(PkiError, match=said):
        site.import_ca("kubernetes-ca", site.root.issue_ca("x", key=key))
    assert not (site.state / "pki/kubernetes-ca").exists()


@pytest.mark.parametrize("form", ["-traditional", "-v2", "DER"])
def test_an_encrypted_key_is_stored_decrypted_for_its_owner_only(site: Site, form: str) -> None:
    certificate = site.root.issue_ca("x")
    plain, key = certificate.with_suffix(".key"), site.directory / "encrypted.key"
    how = {
        "-traditional": ("ec", "-aes256"),
        "-v2": ("pkcs8", "-topk8", "-v2", "aes-256-cbc"),
        "DER": ("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-outform", "DER"),
    }[form]
    openssl(*how, "-in", plain, "-out", key, "-passout", "pass:open sesame")
    for wrong in ("", "open Sesame"):
        with pytest.raises(PkiError, match="or the passphrase is wrong"):
            site.import_ca("kubernetes-ca", certificate, key=key, passphrase=wrong)
    site.import_ca("kubernetes-ca", certificate, key=key, passphrase="open sesame")
    stored = site.state / "pki/kubernetes-ca/key.pem"
    assert openssl("pkey", "-in", stored) == openssl("pkey", "-in", plain)
    assert stored.stat().st_mode & 0o777 == 0o600
    assert b"sesame" not in b"".join(site.read_files().values())
    site.build()


@pytest.mark.parametrize(
    ("extensions", "fault"),
    [
        ("basicConstraints=CA:FALSE", "it is not a CA"),
        (f"{CA}{SIGNS}nameConstraints=permitted;DNS:bank", "name constraints of x refuse master1"),
    ],
)
def test_an_unusable_ca_certificate_is_refused(site: Site, extensions: str, fault: str) -> None:
    with pytest.raises(PkiError, match=fault):
        site.import_ca("kubernetes-ca", site.root.issue_ca("x", extensions=extensions))
    assert site.read_files().keys() <= {".lock"}


def test_a_key_of_another_certificate_is_refused(site: Site) -> None:
    certificate, other = site.root.issue_ca("x"), site.root.issue_ca("y").with_suffix(".key")
    with pytest.raises(PkiError, match=r"y\.key is not the key of this certificate"):
        site.import_ca("kubernetes-ca", certificate, key=other)


def test_certificates_end_with_a_short_lived_ca(site: Site) -> None:
    (note,) = site.import_ca(
        "kubernetes-ca", site.root.issue_ca("x", days=100), chain=site.root.file
    ).notes
    assert "kubernetes-ca and its certificates end on" in note
    assert "sooner than the 365 days of pki.days" in note
    made = site.build()
    assert made.cluster["admin"].not_after == made.cas["kubernetes-ca"].not_after
    assert any("and its new certificates end on" in text for text in made.notes)


def test_a_root_near_its_end_causes_a_warning_and_is_listed(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.root = OfflineRoot(tmp_path / "short", days=40)
    notes = site.import_ca("kubernetes-ca", site.root.issue_ca("x"), chain=site.root.file).notes
    assert [note for note in notes if "Bank Root, above kubernetes-ca, ends on" in note]
    first = list_state_certificates(site.state, datetime.now(UTC))[0]
    assert (first.path, first.note) == ("pki/kubernetes-ca/chain.pem", "issuer of kubernetes-ca")
    assert first.days_left in {39, 40}


def test_the_same_ca_for_two_purposes_is_refused(site: Site) -> None:
    certificate = site.root.issue_ca("x")
    site.import_ca("kubernetes-ca", certificate)
    with pytest.raises(PkiError, match="it has the same key as kubernetes-ca"):
        site.import_ca("etcd-ca", certificate)


def test_an_existing_ca_is_never_replaced(site: Site) -> None:
    site.build()
    before = site.read_files()
    with pytest.raises(PkiError, match="kubernetes-ca already exists") as caught:
        site.import_ca("kubernetes-ca", site.root.issue_ca("x"))
    assert "new, empty state directory" in caught.value.hint
    assert site.read_files() == before


def test_a_requested_ca_cannot_be_imported_with_a_key(site: Site) -> None:
    site.request()
    with pytest.raises(PkiError, match="is signed on request"):
        site.import_ca("kubernetes-ca", site.root.issue_ca("x"))


def test_a_renewed_ca_certificate_replaces_only_the_old_one(site: Site) -> None:
    certificate = site.root.issue_ca("x", days=400)
    site.import_ca("kubernetes-ca", certificate, chain=site.root.file)
    site.build()
    before = site.read_files()
    for renewed in (site.root.issue_ca("y"), site.root.issue("x2", "/CN=x2", f"{CA}{SIGNS}")):
        with pytest.raises(PkiError, match="it is not a renewal of kubernetes-ca in "):
            site.import_ca("kubernetes-ca", renewed, has_key=False)
    renewed = site.root.sign(certificate.with_suffix(".csr"), f"{CA}{SIGNS}", days=4000)
    with pytest.raises(PkiError, match="already exists"):
        site.import_ca("kubernetes-ca", renewed)
    site.import_ca("kubernetes-ca", renewed, has_key=False, chain=site.root.file)
    assert site.build(later=timedelta(days=100)).notes == ()
    after = site.read_files()
    assert {name for name in before if before[name] != after[name]} == {
        "pki/kubernetes-ca/cert.pem"
    }


def test_missing_files_and_keys_are_reported(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the private key is missing"):
        site.import_ca("kubernetes-ca", site.root.issue_ca("x"), has_key=False)
    with pytest.raises(PkiError, match="cannot read: No such file"):
        site.import_ca("kubernetes-ca", tmp_path / "none.crt")
    (tmp_path / "empty.crt").write_text("")
    with pytest.raises(PkiError, match="holds no certificate"):
        site.import_ca("kubernetes-ca", tmp_path / "empty.crt")


def test_a_lost_ca_is_not_replaced_by_an_import(site: Site) -> None:
    site.build()
    shutil.rmtree(site.state / "pki/kubernetes-ca")
    with pytest.raises(PkiError, match="missing, but .*, which is made later, exists"):
        site.import_ca("kubernetes-ca", site.root.issue_ca("x"))
