"""Upstream signatures: a file is locked only if the user's key signed it."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pysequoia import Cert, SignatureMode, Tsk, sign
from support.descriptions import write_description, write_upstream
from support.sigstore_instance import Sigstore, make_key

from bundler.cache.archive import export_blobs, import_blobs, list_blobs
from bundler.cache.maintenance import prune_cache
from bundler.cache.refs import DOCUMENTS, IMPORTED, list_refs
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.catalog.signatures import Scheme, find_signed
from bundler.downloads import list_files, update_lock
from bundler.errors import ArtifactError, BundlerError, ConfigError
from bundler.formats.digests import hash_file
from bundler.pipeline import build
from bundler.project import Inputs, check, load, resolve
from bundler.sources.lock import LockKind, TrustSource, lock_path, read_lock

ETCD = "etcd/amd64"
IDENTITY, GOOGLE = "releaser@example.org", "https://accounts.example"
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Site:
    """A cluster with a signed etcd archive."""

    inputs: Inputs
    directory: Path

    @property
    def file(self) -> Path:
        """The etcd archive in the mirror."""
        pins = json.loads((self.directory / "pins.yaml").read_text())["artifacts"]
        return self.directory / "mirror" / pins[ETCD]["url"].removeprefix("https://")

    def add_sidecar(self, suffix: str, content: bytes) -> None:
        self.file.with_name(self.file.name + suffix).write_bytes(content)

    def trust(self, **key: str) -> None:
        """Write cluster.yaml with this key for etcd."""
        text = self.inputs.description.read_text().partition("\nupstream_keys:")[0]
        self.inputs.description.write_text(f"{text}\nupstream_keys: {{etcd: {json.dumps(key)}}}\n")

    def trust_cert(self, cert: Cert, **more: str) -> None:
        (self.directory / "key.asc").write_text(str(cert))
        self.trust(openpgp=f"{self.directory}/key.asc", **more)

    def lock(self, *update: str) -> tuple[TrustSource, str]:
        """The lock entry of etcd."""
        update_lock(self.inputs, update)
        entry = read_lock(lock_path(self.inputs.description)).find(
            LockKind.ARTIFACT, "etcd", "amd64"
        )
        assert entry is not None
        return entry.origin, entry.evidence


def list_needed(inputs: Inputs) -> tuple[Artifact, ...]:
    project = load(inputs)
    return list_files(project, resolve(project))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    description = write_description(tmp_path)
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), offline=True,
        mirrors=(str(tmp_path / "mirror"),), pins=write_upstream(tmp_path, description),
    )  # fmt: skip
    return Site(inputs=inputs, directory=tmp_path)


def sign_file(key: Tsk, content: bytes) -> bytes:
    return bytes(sign(key.signer(), content, mode=SignatureMode.DETACHED))


# OpenPGP


def test_the_lock_records_the_signer_of_a_signature(site: Site) -> None:
    key = Tsk.generate("etcd <etcd@example.org>")
    site.add_sidecar(".asc", sign_file(key, site.file.read_bytes()))
    site.trust_cert(key.extract_certificate())
    origin, evidence = site.lock()
    assert origin is TrustSource.UPSTREAM_SIGNATURE
    assert evidence.startswith(f"OpenPGP {key.extract_certificate().fingerprint}: https://")
    assert evidence.endswith(".asc")
    check(site.inputs)


def test_one_of_several_certificates_is_enough(site: Site) -> None:
    keys = [Tsk.generate(f"{number} <{number}@example.org>") for number in range(3)]
    site.add_sidecar(".asc", sign_file(keys[1], site.file.read_bytes()))
    for joined in (
        b"".join(bytes(key.extract_certificate()) for key in keys),
        "".join(str(key.extract_certificate()) for key in keys).encode(),
    ):
        (site.directory / "keyring").write_bytes(joined)
        site.trust(openpgp=f"{site.directory}/keyring")
        assert site.lock("etcd")[0] is TrustSource.UPSTREAM_SIGNATURE


def test_a_key_that_is_added_later_is_checked_by_the_next_lock(site: Site) -> None:
    assert site.lock()[0] is TrustSource.USER
    key = Tsk.generate("etcd <etcd@example.org>")
    site.trust_cert(key.extract_certificate())
    with pytest.raises(ArtifactError, match=r"there is no file at https://.*\.asc"):
        site.lock()
    site.add_sidecar(".sig", sign_file(key, site.file.read_bytes()))
    site.trust_cert(key.extract_certificate(), signature="{url}.sig")
    assert site.lock()[0] is TrustSource.UPSTREAM_SIGNATURE


@pytest.mark.usefixtures("no_line_has_ended")
def test_a_build_refuses_a_component_with_a_key_until_a_lock_has_its_signature(
    site: Site,
) -> None:
    signature, cert = wrong_key(Tsk.generate("etcd"), site.file.read_bytes())
    site.add_sidecar(".asc", signature)
    site.lock()
    site.trust_cert(cert)
    strict = replace(site.inputs, strict=True)
    for inputs in (site.inputs, strict):
        for use in (check, list_needed, lambda given: build(given, site.directory / "dist")):
            with pytest.raises(ArtifactError, match="etcd .* is locked by user") as why:
                use(inputs)
            assert "bundler lock --update etcd" in (why.value.hint or "")
    lock_path(site.inputs.description).unlink()
    with pytest.raises(
        ArtifactError, match="etcd .*: upstream_keys requires a signature"
    ) as caught:
        check(site.inputs)
    assert "bundler lock" in (caught.value.hint or "")


def test_a_lock_checked_with_another_key_is_refused(site: Site) -> None:
    keys = [Tsk.generate(f"{number} <{number}@example.org>") for number in range(2)]
    certs = [key.extract_certificate() for key in keys]
    site.add_sidecar(".asc", sign_file(keys[0], site.file.read_bytes()))
    site.trust_cert(certs[0])
    site.lock()
    before = lock_path(site.inputs.description).read_bytes()
    assert hash_file(site.directory / "key.asc", "sha256").encode() in before

    site.trust_cert(certs[1])
    with pytest.raises(ArtifactError, match=r"etcd .* was checked with openpgp sha256:") as why:
        check(site.inputs)
    assert "bundler lock --update etcd" in (why.value.hint or "")
    with pytest.raises(ArtifactError, match="the signature is not valid"):
        site.lock()
    assert lock_path(site.inputs.description).read_bytes() == before

    site.add_sidecar(".asc", sign_file(keys[1], site.file.read_bytes()))
    assert str(certs[1].fingerprint) in site.lock()[1]
    check(site.inputs)


def test_a_lock_without_the_key_of_a_signature_is_updated(site: Site) -> None:
    key = Tsk.generate("etcd <etcd@example.org>")
    site.add_sidecar(".asc", sign_file(key, site.file.read_bytes()))
    site.trust_cert(key.extract_certificate())
    site.lock()
    path = lock_path(site.inputs.description)
    lines = [line for line in path.read_text().splitlines() if "trust:" not in line]
    path.write_text("\n".join(lines))
    with pytest.raises(ArtifactError, match="was checked with an unknown key"):
        check(site.inputs)
    site.lock()
    check(site.inputs)


def test_a_changed_file_is_drift_even_if_a_key_was_added(site: Site) -> None:
    pins = json.loads((site.directory / "pins.yaml").read_text())
    del pins["artifacts"][ETCD]["sha256"]
    (site.directory / "pins.yaml").write_text(json.dumps(pins))
    assert site.lock()[0] is TrustSource.FIRST_USE
    key = Tsk.generate("etcd <etcd@example.org>")
    site.file.write_bytes(site.file.read_bytes() + b"x")
    site.add_sidecar(".asc", sign_file(key, site.file.read_bytes()))
    site.trust_cert(key.extract_certificate())
    with pytest.raises(
        ArtifactError, match=r"etcd \(amd64\) is locked as .* is now sha256:"
    ) as why:
        site.lock()
    assert "bundler lock --update etcd" in (why.value.hint or "")
    assert site.lock("etcd")[0] is TrustSource.UPSTREAM_SIGNATURE


def wrong_key(_: Tsk, content: bytes) -> tuple[bytes, Cert]:
    return sign_file(Tsk.generate("mallory"), content), Tsk.generate("etcd").extract_certificate()


def other_file(key: Tsk, content: bytes) -> tuple[bytes, Cert]:
    return sign_file(key, content + b"x"), key.extract_certificate()


def expired(_: Tsk, content: bytes) -> tuple[bytes, Cert]:
    """A signature made after the certificate expired; one made before is valid."""
    key = Tsk.generate("etcd <etcd@example.org>")
    end = datetime.now(UTC) + timedelta(seconds=1)
    cert = key.extract_certificate().set_expiration(expiration=end, certifier=key.certifier())
    time.sleep(2.1)
    return sign_file(key, content), cert


def revoked(key: Tsk, content: bytes) -> tuple[bytes, Cert]:
    cert = key.extract_certificate()
    revocation = cert.revoke(certifier=key.certifier())
    return sign_file(key, content), Cert.from_bytes(bytes(cert) + bytes(revocation))


def no_signature(key: Tsk, _: bytes) -> tuple[bytes, Cert]:
    return b"<html>not found</html>", key.extract_certificate()


@pytest.mark.slow
@pytest.mark.parametrize("make", [wrong_key, other_file, expired, revoked, no_signature])
def test_an_invalid_signature_is_refused_and_no_lock_is_written(
    site: Site, make: Callable[[Tsk, bytes], tuple[bytes, Cert]]
) -> None:
    signature, cert = make(Tsk.generate("etcd <etcd@example.org>"), site.file.read_bytes())
    site.add_sidecar(".asc", signature)
    site.trust_cert(cert)
    with pytest.raises(ArtifactError, match=r"etcd .*: the signature is not valid: ."):
        site.lock()
    assert not lock_path(site.inputs.description).exists()


# cosign


def make_ca(name: str = "fulcio") -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(),
        BEFORE - timedelta(days=100), BEFORE + timedelta(days=3000),
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)  # fmt: skip
    return builder.sign(key, hashes.SHA384()), key


def sign_like_cosign(
    site: Site, *, identity: str = IDENTITY, issuer: str = GOOGLE, is_raw: bool = False,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING, content: bytes | None = None,
    days: int = 0,
) -> None:  # fmt: skip
    """Write a signature and a certificate next to the etcd archive, and set the CA as the key."""
    ca, ca_key = make_ca()
    key = ec.generate_private_key(ec.SECP256R1())
    oid, value = (
        ("1.3.6.1.4.1.57264.1.1", issuer.encode())
        if is_raw
        else ("1.3.6.1.4.1.57264.1.8", b"\x0c" + bytes([len(issuer)]) + issuer.encode())
    )
    at = BEFORE + timedelta(days=days)
    leaf = (
        x509.CertificateBuilder(
            ca.subject, x509.Name([]), key.public_key(), x509.random_serial_number(),
            at, at + timedelta(minutes=10),
        )
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
        .sign(ca_key, hashes.SHA384())
    )  # fmt: skip
    pem = leaf.public_bytes(serialization.Encoding.PEM)
    signed = content if content is not None else site.file.read_bytes()
    signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    site.add_sidecar(".sig", base64.b64encode(signature))
    site.add_sidecar(".cert", pem if is_raw else base64.b64encode(pem))
    (site.directory / "fulcio.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    site.trust(cosign=f"{site.directory}/fulcio.pem", identity=IDENTITY, issuer=GOOGLE)


@pytest.mark.parametrize("is_raw", [False, True])
def test_the_lock_records_the_identity_in_a_certificate(site: Site, is_raw: bool) -> None:
    sign_like_cosign(site, is_raw=is_raw)
    origin, evidence = site.lock()
    assert origin is TrustSource.UPSTREAM_SIGNATURE
    assert evidence.startswith(f"cosign {IDENTITY}: https://")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"identity": "mallory@example.org"},
            "its certificate is for mallory@example.org, not for",
        ),
        (
            {"issuer": "https://mallory.example"},
            "its identity is issued by https://mallory.example",
        ),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, "not for code signing"),
        ({"content": b"another file"}, "not made by the key of its certificate"),
        ({"days": 5000}, "none of the CAs in upstream_keys issued its certificate"),
    ],
    ids=["identity", "issuer", "usage", "file", "time"],
)
def test_an_invalid_certificate_is_refused(
    site: Site, changes: dict[str, object], why: str
) -> None:
    sign_like_cosign(site, **changes)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=f"the signature is not valid: .*{why}"):
        site.lock()
    assert not lock_path(site.inputs.description).exists()


def test_a_lock_checked_with_another_identity_is_refused(site: Site) -> None:
    sign_like_cosign(site)
    site.lock()
    check(site.inputs)
    site.trust(cosign=f"{site.directory}/fulcio.pem", identity="other@example.org", issuer=GOOGLE)
    with pytest.raises(ArtifactError, match=f"{IDENTITY} by {GOOGLE}, but .*other@example.org by"):
        check(site.inputs)


def test_a_certificate_from_another_ca_is_not_trusted(site: Site) -> None:
    sign_like_cosign(site)
    other, _ = make_ca()
    (site.directory / "fulcio.pem").write_bytes(other.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(ArtifactError, match="none of the CAs in upstream_keys"):
        site.lock()


# sigstore


def sign_with_sigstore(site: Site, sigstore: Sigstore, **changes: str | bytes) -> None:
    content = changes.pop("content", site.file.read_bytes())
    signer = {"identity": IDENTITY, "issuer": GOOGLE} | changes
    site.add_sidecar(".sigstore.json", sigstore.sign(content, **signer))  # type: ignore[arg-type]
    (site.directory / "root.json").write_bytes(sigstore.trusted_root())
    site.trust(sigstore=f"{site.directory}/root.json", identity=IDENTITY, issuer=GOOGLE)


def test_a_sigstore_bundle_proves_the_signer_and_the_log_entry(site: Site) -> None:
    sign_with_sigstore(site, Sigstore())
    origin, evidence = site.lock()
    assert origin is TrustSource.UPSTREAM_SIGNATURE
    assert evidence.startswith(f"sigstore {IDENTITY}: https://")
    assert evidence.endswith(".sigstore.json")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"identity": "mallory@example.org"}, "Certificate's SANs do not match"),
        ({"issuer": "https://mallory.example"}, "OIDCIssuer does not match"),
        ({"content": b"another file"}, "digest mismatch"),
        ({"logged": b"another file"}, "entry"),
    ],
    ids=["identity", "issuer", "file", "log"],
)
def test_a_sigstore_bundle_for_another_file_or_identity_is_refused(
    site: Site, changes: dict[str, str | bytes], why: str
) -> None:
    sign_with_sigstore(site, Sigstore(), **changes)
    with pytest.raises(ArtifactError, match=f"the signature is not valid: .*{why}"):
        site.lock()
    assert not lock_path(site.inputs.description).exists()


@pytest.mark.parametrize("service", ["ca", "certificates_log", "log"])
def test_no_service_of_another_sigstore_instance_is_trusted(site: Site, service: str) -> None:
    sigstore = Sigstore()
    sign_with_sigstore(site, replace(sigstore, **{service: make_key()}))
    (site.directory / "root.json").write_bytes(sigstore.trusted_root())
    with pytest.raises(ArtifactError, match="the signature is not valid"):
        site.lock()


def test_an_invalid_sigstore_bundle_is_refused(site: Site) -> None:
    sign_with_sigstore(site, Sigstore())
    site.add_sidecar(".sigstore.json", b"{}")
    with pytest.raises(ArtifactError, match="the signature is not valid"):
        site.lock()


def test_kubernetes_releases_are_recognized_by_their_signing_identity() -> None:
    row = find_signed("kubernetes-server", "1.31.2", Scheme.SIGSTORE)
    assert row is not None
    assert row.identity == "krel-staging@k8s-releng-prod.iam.gserviceaccount.com"
    assert row.signature == "{url}.sigstore.json"


# without a network


def sign_openpgp(site: Site) -> None:
    key = Tsk.generate("etcd <etcd@example.org>")
    site.add_sidecar(".asc", sign_file(key, site.file.read_bytes()))
    site.trust_cert(key.extract_certificate())


@pytest.mark.parametrize(("sign_it", "count"), [(sign_openpgp, 1), (sign_like_cosign, 2)])
def test_signatures_are_verified_again_offline_from_the_cache_and_from_an_imported_one(
    site: Site, sign_it: Callable[[Site], None], count: int
) -> None:
    sign_it(site)
    expected = site.lock()
    offline = replace(site.inputs, mirrors=())
    needed = {(file.algorithm, file.digest) for file in list_needed(offline)}
    assert len(needed) == len(list_blobs(site.inputs.cache))
    assert not prune_cache(site.inputs.cache, list_needed(offline))

    export_blobs(site.inputs.cache, site.directory / "x.tar", list_needed(offline))
    carried = replace(offline, cache=Cache(site.directory / "carried"))
    list(import_blobs(carried.cache, site.directory / "x.tar"))
    for inputs in (offline, carried):
        lock_path(inputs.description).unlink()
        assert Site(inputs, site.directory).lock() == expected

    assert len(prune_cache(site.inputs.cache, ())) == len(needed)
    assert list_refs(DOCUMENTS, site.inputs.cache) == {}
    assert len(list_refs(IMPORTED, carried.cache)) == count


# user errors


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({}, "give openpgp, cosign or sigstore"),
        ({"openpgp": "a", "cosign": "b"}, "give openpgp, cosign or sigstore"),
        ({"openpgp": "nowhere.asc"}, "site/nowhere.asc: no such file"),
        ({"sigstore": "nowhere.json"}, "site/nowhere.json: no such file"),
    ],
)
def test_an_upstream_key_that_fits_no_component_is_refused(
    site: Site, key: dict[str, str], why: str
) -> None:
    site.trust(**key)
    with pytest.raises(ConfigError, match=why):
        site.lock()


def test_a_key_file_that_is_invalid_is_reported(site: Site) -> None:
    site.add_sidecar(".asc", b"")
    (site.directory / "text").write_text("no key\n")
    for scheme in ("openpgp", "cosign", "sigstore"):
        site.trust(**{scheme: f"{site.directory}/text", "identity": "a", "issuer": "b"})
        with pytest.raises(BundlerError, match=r"text|there is no file at"):
            site.lock()


def test_the_catalog_has_the_first_version_that_upstream_signs() -> None:
    row = find_signed("kubernetes-server", "1.31.2", Scheme.COSIGN)
    assert row is not None
    assert row.identity.startswith("krel-staging@")
    assert find_signed("kubernetes-server", "1.25.9", Scheme.COSIGN) is None
    runc = find_signed("runc", "1.1.5", Scheme.OPENPGP)
    assert runc is not None
    assert runc.signature == "{url}.asc"
