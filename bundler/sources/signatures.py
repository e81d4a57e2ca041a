"""Upstream's signatures, checked before a file's digest is believed on upstream's word.

OpenPGP by Sequoia (pysequoia): detached signatures by a certificate that the user gives. cosign:
the signature by the certificate's key, and the certificate by an authority that the user gives
(Fulcio's), for the identity that upstream signs as. The certificate lives for minutes, so it is
judged at its own time; that the signature was made then, only the transparency log can prove.
sigstore: a bundle that holds that proof, by sigstore's own library with the trusted root that the
user gives, without a network.

Sources: RFC 9580; sigstore's Fulcio certificate specification (1.3.6.1.4.1.57264.1).
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from pysequoia import Cert, Sig
from pysequoia import verify as verify_openpgp

from bundler.cache.stamps import hash_file
from bundler.catalog import Artifact
from bundler.catalog.signatures import Scheme, Signed, find_signed
from bundler.cluster.inputs import UpstreamKey
from bundler.errors import ArtifactError, ConfigError
from bundler.sources.fetch import FetchOptions
from bundler.sources.sidecars import (
    CERTIFICATE,
    SIGNATURE,
    SidecarKind,
    fetch_beside,
)

ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
ISSUER_RAW = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
PEM = b"-----BEGIN"
PGP_PUBLIC = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """Who signed a file."""

    signer: str  # a fingerprint, or an identity
    url: str  # of the signature

    @property
    def evidence(self) -> str:
        """As the lock says it."""
        return f"{self.signer}: {self.url}"


class _BadError(Exception):
    """Why a signature is not what it must be."""


def check_signature(
    artifact: Artifact, path: Path, key: UpstreamKey, options: FetchOptions
) -> Vouched:
    """Who signed the file at `path`; ArtifactError where nobody did whom the user believes.

    ConfigError where the user's key cannot be read, or the version is from before upstream signed.
    """
    signed = _choose_signed(artifact.component, artifact.version, key)
    url = signed.signature.format(url=artifact.url)
    signature = _fetch(artifact, SIGNATURE, url, options)
    try:
        signer = _CHECKS[signed.scheme](artifact, path, key, signed, signature, options)
    except _BadError as error:
        raise ArtifactError(
            f"{artifact.label}: its signature does not hold: {error}\n  {url}",
            hint="find out who changed the file, the signature or the key before you take it",
        ) from error
    return Vouched(signer=signer, url=url)


def list_signatures(artifact: Artifact, key: UpstreamKey) -> tuple[str, ...]:
    """The URLs of what `check_signature` asks for."""
    signed = _choose_signed(artifact.component, artifact.version, key)
    urls = (signed.signature, signed.certificate if signed.scheme is Scheme.COSIGN else "")
    return tuple(url.format(url=artifact.url) for url in urls if url)


def describe_trust(component: str, version: str, key: UpstreamKey) -> str:
    """Whom `key` believes, in words that are others for any other key: the lock keeps them.

    `openpgp sha256:…` with the digest of the key's file; of certificates also whom they must name.
    ConfigError as `check_signature` raises it.
    """
    signed = _choose_signed(component, version, key)
    digest = hashlib.sha256(_read_key(getattr(key, signed.scheme))).hexdigest()
    named = f" {signed.identity} by {signed.issuer}" if signed.scheme is not Scheme.OPENPGP else ""
    return f"{signed.scheme} sha256:{digest}{named}"


def _choose_signed(component: str, version: str, key: UpstreamKey) -> Signed:
    """How upstream signs that version, where the user says nothing else."""
    scheme = next(scheme for scheme in Scheme if getattr(key, scheme))
    signed = find_signed(component, version, scheme)
    if signed is None:
        raise ConfigError(
            f"upstream_keys.{component}: {version} is not signed so by upstream",
            hint="take the key out; the digest is then believed on the word of others",
        )
    return replace(
        signed,
        signature=key.signature or signed.signature,
        certificate=key.certificate or signed.certificate,
        identity=key.identity or signed.identity,
        issuer=key.issuer or signed.issuer,
    )


def _fetch(artifact: Artifact, kind: SidecarKind, url: str, options: FetchOptions) -> bytes:
    content = fetch_beside(artifact, kind, url, options)
    if content is None:
        raise ArtifactError(
            f"{artifact.label}: upstream_keys says who signs it, and nothing is at {url}",
            hint=f"{kind.instead}, or take the key out",
        )
    return content


def _check_openpgp(
    _: Artifact, path: Path, key: UpstreamKey, __: Signed, signature: bytes, ___: FetchOptions
) -> str:
    """The fingerprint of the certificate that signed."""
    certificates = _read_openpgp(key.openpgp)
    try:
        found = verify_openpgp(
            file=str(path), store=lambda _: certificates, signature=Sig.from_bytes(signature)
        )
    except Exception as error:
        raise _BadError(str(error).partition("\n")[0]) from error
    if not found.valid_sigs:
        raise _BadError(f"no key of {key.openpgp} made it")
    return f"OpenPGP {found.valid_sigs[0].certificate}"


def _read_openpgp(path: Path | None) -> list[Cert]:
    """Every certificate of a file, which may be several armoured ones, or a keyring."""
    content = _read_key(path)
    blocks = content.split(PGP_PUBLIC)
    parts = [PGP_PUBLIC + block for block in blocks[1:]] if len(blocks) > 2 else [content]
    try:
        return [cert for part in parts for cert in Cert.split_bytes(part)]
    except Exception as error:
        raise ConfigError(f"{path}: no OpenPGP certificate") from error


def _check_cosign(
    artifact: Artifact, path: Path, key: UpstreamKey, signed: Signed, signature: bytes,
    options: FetchOptions,
) -> str:  # fmt: skip
    """The identity whose certificate's key signed."""
    _check_named(artifact, signed)
    url = signed.certificate.format(url=artifact.url)
    leaf = _read_leaf(_fetch(artifact, CERTIFICATE, url, options))
    _check_leaf(leaf, _read_authorities(key.cosign), signed)
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise _BadError("its certificate has no key of an elliptic curve")
    try:
        raw = base64.b64decode(signature, validate=False)
        digest = bytes.fromhex(hash_file(path, "sha256"))
        public.verify(raw, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except (InvalidSignature, binascii.Error) as error:
        raise _BadError("the certificate's key did not make it") from error
    return f"cosign {signed.identity}"


def _check_sigstore(
    artifact: Artifact, path: Path, key: UpstreamKey, signed: Signed, signature: bytes,
    _: FetchOptions,
) -> str:  # fmt: skip
    """The identity that signed, as the transparency log has it."""
    _check_named(artifact, signed)
    # here, since it takes longer to load than all the rest of bundler
    from bundler.sources.sigstore_bundles import BadBundleError, check_bundle  # noqa: PLC0415

    try:
        check_bundle(signature, path, _read_key(key.sigstore), signed.identity, signed.issuer)
    except BadBundleError as error:
        raise _BadError(str(error)) from error
    except ValueError as error:
        raise ConfigError(f"{key.sigstore}: no trusted root of sigstore's: {error}") from error
    return f"sigstore {signed.identity}"


def _check_named(artifact: Artifact, signed: Signed) -> None:
    if not signed.identity or not signed.issuer:
        raise ConfigError(
            f"upstream_keys.{artifact.component}: whom must the certificate name?",
            hint=f"give `identity:` and `issuer:` beside `{signed.scheme}:`",
        )


def _read_leaf(content: bytes) -> x509.Certificate:
    """cosign writes the PEM as it is, or once more in base64."""
    try:
        pem = content if content.lstrip().startswith(PEM) else base64.b64decode(content)
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, binascii.Error) as error:
        raise _BadError("what lies beside it is no certificate") from error


def _check_leaf(
    leaf: x509.Certificate, authorities: Sequence[x509.Certificate], signed: Signed
) -> None:
    """Issued by one of them, at its own time, to sign code, for that identity."""
    at = leaf.not_valid_before_utc
    if not any(_issued(leaf, authority) for authority in authorities):
        raise _BadError(f"no authority that you gave issued its certificate at {at:%Y-%m-%d}")
    try:
        extensions = leaf.extensions
        usage = extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
        names = extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise _BadError("its certificate does not say what it is for, or whose it is") from error
    assert isinstance(usage, x509.ExtendedKeyUsage)  # noqa: S101 - narrows the type
    assert isinstance(names, x509.SubjectAlternativeName)  # noqa: S101 - narrows the type
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise _BadError("its certificate is not for signing")
    found = {str(name.value) for name in names}
    if signed.identity not in found:
        raise _BadError(f"it is {', '.join(sorted(found))}'s, and not {signed.identity}'s")
    if signed.issuer not in (issuers := _issuers(extensions)):
        raise _BadError(f"{', '.join(issuers) or 'nobody'} vouches for it, not {signed.issuer}")


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    at = leaf.not_valid_before_utc
    if not authority.not_valid_before_utc <= at <= authority.not_valid_after_utc:
        return False
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        leaf.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return constraints.ca


def _issuers(extensions: x509.Extensions) -> list[str]:
    """Who vouched for the identity: a UTF8String in the newer extension, text in the older."""
    found = []
    for oid, skipped in ((ISSUER, 2), (ISSUER_RAW, 0)):
        try:
            value = extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        if isinstance(value, x509.UnrecognizedExtension):
            found.append(value.value[skipped:].decode(errors="replace"))
    return found


def _read_authorities(path: Path | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read_key(path))
    except ValueError as error:
        raise ConfigError(f"{path}: no certificates in PEM: {error}") from error


def _read_key(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path else b""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


_Check = Callable[[Artifact, Path, UpstreamKey, Signed, bytes, FetchOptions], str]
_CHECKS: dict[Scheme, _Check] = {
    Scheme.OPENPGP: _check_openpgp,
    Scheme.COSIGN: _check_cosign,
    Scheme.SIGSTORE: _check_sigstore,
}
