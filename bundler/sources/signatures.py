"""Check upstream signatures, before an upstream digest is trusted.

OpenPGP, with Sequoia (pysequoia): detached signatures by a certificate that the user gives.
cosign: the signature must be by the certificate's key, and the certificate by a CA that the user
gives (Fulcio), for the identity that upstream signs as. Such a certificate is valid for minutes, so
it is checked at its own time. Only the transparency log proves that the signature is from then.
sigstore: a bundle that includes that proof, checked offline by sigstore's own library with the
trusted root that the user gives.

Sources: RFC 9580; sigstore's Fulcio certificate specification (1.3.6.1.4.1.57264.1).
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from pysequoia import Cert, Sig
from pysequoia import verify as verify_openpgp

from bundler.catalog import Artifact
from bundler.catalog.signatures import Scheme, Signed
from bundler.cluster.inputs import UpstreamKey
from bundler.errors import ArtifactError, ConfigError
from bundler.formats.digests import hash_file
from bundler.sources.fetch import FetchOptions
from bundler.sources.sidecars import (
    CERTIFICATE,
    SIGNATURE,
    SidecarKind,
    fetch_sidecar,
)
from bundler.sources.trust import choose_signed, read_key
from bundler.urls import hide_places, show_url

ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
ISSUER_RAW = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
PEM = b"-----BEGIN"
PGP_PUBLIC = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSignature:
    """The signer of a file."""

    signer: str  # a fingerprint, or an identity
    url: str  # of the signature

    @property
    def evidence(self) -> str:
        """The text for the lock."""
        return f"{self.signer}: {hide_places(self.url)}"


class BadSignatureError(Exception):
    """A signature is invalid; the text says why."""


def check_signature(
    artifact: Artifact, path: Path, key: UpstreamKey, options: FetchOptions
) -> VerifiedSignature:
    """The signer of the file at `path`; ArtifactError if the signature is missing or invalid.

    ConfigError if the user's key cannot be read, or upstream does not sign this version.
    """
    signed = choose_signed(artifact.component, artifact.version, key)
    url = signed.signature.replace("{url}", artifact.url)
    signature = _fetch(artifact, SIGNATURE, url, options)
    try:
        signer = _CHECKS[signed.scheme](artifact, path, key, signed, signature, options)
    except BadSignatureError as error:
        raise ArtifactError(
            f"{artifact.label}: the signature is not valid: {error}\n  {show_url(url)}",
            hint="find out who changed the file, the signature or the key before you use it",
        ) from error
    return VerifiedSignature(signer=signer, url=url)


def list_signatures(artifact: Artifact, key: UpstreamKey) -> tuple[str, ...]:
    """The URLs that `check_signature` requests."""
    signed = choose_signed(artifact.component, artifact.version, key)
    urls = (signed.signature, signed.certificate if signed.scheme is Scheme.COSIGN else "")
    return tuple(url.replace("{url}", artifact.url) for url in urls if url)


def _fetch(artifact: Artifact, kind: SidecarKind, url: str, options: FetchOptions) -> bytes:
    content = fetch_sidecar(artifact, kind, url, options)
    if content is None:
        raise ArtifactError(
            f"{artifact.label}: upstream_keys requires a signature, but there is no file at"
            f" {show_url(url)}",
            hint=f"{kind.instead}, or remove the key",
        )
    return content


def _check_openpgp(
    _: Artifact, path: Path, key: UpstreamKey, __: Signed, signature: bytes, ___: FetchOptions
) -> str:
    """The fingerprint of the certificate that made the signature."""
    certificates = _read_openpgp(key.openpgp)
    try:
        found = verify_openpgp(
            file=str(path), store=lambda _: certificates, signature=Sig.from_bytes(signature)
        )
    except Exception as error:
        raise BadSignatureError(str(error).partition("\n")[0]) from error
    if not found.valid_sigs:
        raise BadSignatureError(f"no key in {key.openpgp} made it")
    return f"OpenPGP {found.valid_sigs[0].certificate}"


def read_signed_message(message: bytes, keys: Path | None) -> tuple[bytes, str]:
    """The text of a message with an OpenPGP signature in it, and the signer's fingerprint.

    Raises BadSignatureError if no key in the file `keys` made the signature.
    """
    certificates = _read_openpgp(keys)
    try:
        found = verify_openpgp(message, store=lambda _: certificates)
    except Exception as error:
        raise BadSignatureError(str(error).partition("\n")[0]) from error
    if not found.valid_sigs or not found.bytes:
        raise BadSignatureError(f"no key in {keys} made it")
    return found.bytes, f"OpenPGP {found.valid_sigs[0].certificate}"


def _read_openpgp(path: Path | None) -> list[Cert]:
    """Every certificate in a file: one or several armoured ones, or a keyring."""
    content = read_key(path)
    blocks = content.split(PGP_PUBLIC)
    parts = [PGP_PUBLIC + block for block in blocks[1:]] if len(blocks) > 2 else [content]
    try:
        return [cert for part in parts for cert in Cert.split_bytes(part)]
    except Exception as error:
        raise ConfigError(f"{path}: not an OpenPGP certificate") from error


def _check_cosign(
    artifact: Artifact, path: Path, key: UpstreamKey, signed: Signed, signature: bytes,
    options: FetchOptions,
) -> str:  # fmt: skip
    """The identity in the certificate whose key made the signature."""
    check_named(artifact.component, signed)
    url = signed.certificate.replace("{url}", artifact.url)
    certificate = _fetch(artifact, CERTIFICATE, url, options)
    digest = bytes.fromhex(hash_file(path, "sha256"))
    verify_cosign(digest, signature, certificate, key, signed)
    return f"cosign {signed.identity}"


def verify_cosign(
    digest: bytes, signature: bytes, certificate: bytes, key: UpstreamKey, signed: Signed
) -> None:
    """Check that the signature of a SHA-256 is by the certificate, and whose certificate it is.

    Raises BadSignatureError.
    """
    leaf = _read_leaf(certificate)
    _check_leaf(leaf, _read_cas(key.cosign), signed)
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise BadSignatureError("its certificate has no elliptic-curve key")
    try:
        raw = base64.b64decode(signature, validate=False)
        public.verify(raw, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except (InvalidSignature, binascii.Error) as error:
        raise BadSignatureError("it was not made by the key of its certificate") from error


def _check_sigstore(
    artifact: Artifact, path: Path, key: UpstreamKey, signed: Signed, signature: bytes,
    _: FetchOptions,
) -> str:  # fmt: skip
    """The identity that signed, as recorded in the transparency log."""
    check_named(artifact.component, signed)
    # imported here: it takes longer to load than the rest of bundler
    from bundler.sources.sigstore_bundles import BadBundleError, check_bundle  # noqa: PLC0415

    try:
        check_bundle(signature, path, read_key(key.sigstore), signed.identity, signed.issuer)
    except BadBundleError as error:
        raise BadSignatureError(str(error)) from error
    except ValueError as error:
        raise ConfigError(f"{key.sigstore}: not a trusted root of sigstore: {error}") from error
    return f"sigstore {signed.identity}"


def check_named(component: str, signed: Signed) -> None:
    """Raise ConfigError if the user must say who signs."""
    if not signed.identity or not signed.issuer:
        raise ConfigError(
            f"upstream_keys.{component}: the identity and the issuer are missing",
            hint=f"add `identity:` and `issuer:` next to `{signed.scheme}:`",
        )


def _read_leaf(content: bytes) -> x509.Certificate:
    """The certificate; cosign writes PEM, or PEM that is encoded in base64 again."""
    try:
        pem = content if content.lstrip().startswith(PEM) else base64.b64decode(content)
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, binascii.Error) as error:
        raise BadSignatureError("the certificate file next to it is not a certificate") from error


def _check_leaf(leaf: x509.Certificate, cas: Sequence[x509.Certificate], signed: Signed) -> None:
    """Check the issuer at the certificate's own time, the code signing usage and the identity."""
    at = leaf.not_valid_before_utc
    if not any(_is_issued_by(leaf, ca) for ca in cas):
        raise BadSignatureError(
            f"none of the CAs in upstream_keys issued its certificate of {at:%Y-%m-%d}"
        )
    try:
        extensions = leaf.extensions
        usage = extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
        names = extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise BadSignatureError(
            "its certificate has no extended key usage or no identity"
        ) from error
    assert isinstance(usage, x509.ExtendedKeyUsage)  # noqa: S101 - narrows the type
    assert isinstance(names, x509.SubjectAlternativeName)  # noqa: S101 - narrows the type
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise BadSignatureError("its certificate is not for code signing")
    found = {str(name.value) for name in names}
    if signed.identity not in found:
        raise BadSignatureError(
            f"its certificate is for {', '.join(sorted(found))}, not for {signed.identity}"
        )
    if signed.issuer not in (issuers := _issuers(extensions)):
        raise BadSignatureError(
            f"its identity is issued by {', '.join(issuers) or 'nobody'}, not by {signed.issuer}"
        )


def _is_issued_by(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    at = leaf.not_valid_before_utc
    if not ca.not_valid_before_utc <= at <= ca.not_valid_after_utc:
        return False
    try:
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        leaf.verify_directly_issued_by(ca)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return constraints.ca


def _issuers(extensions: x509.Extensions) -> list[str]:
    """The issuers of the identity: a UTF8String in the new extension, text in the old one."""
    found = []
    for oid, skipped in ((ISSUER, 2), (ISSUER_RAW, 0)):
        try:
            value = extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        if isinstance(value, x509.UnrecognizedExtension):
            found.append(value.value[skipped:].decode(errors="replace"))
    return found


def _read_cas(path: Path | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_key(path))
    except ValueError as error:
        raise ConfigError(f"{path}: no certificates in PEM format: {error}") from error


_Check = Callable[[Artifact, Path, UpstreamKey, Signed, bytes, FetchOptions], str]
_CHECKS: dict[Scheme, _Check] = {
    Scheme.OPENPGP: _check_openpgp,
    Scheme.COSIGN: _check_cosign,
    Scheme.SIGSTORE: _check_sigstore,
}
