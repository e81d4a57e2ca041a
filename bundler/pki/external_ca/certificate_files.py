"""Read certificates and keys from files, in the formats that PKI departments deliver.

Certificates: PEM (one or more, with text around them), DER, PKCS#7 as PEM or DER (.p7b).
Keys: PEM or DER, PKCS#8 or traditional, encrypted or not.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
    pkcs7,
)

from bundler.errors import PkiError
from bundler.pki import declarations, issuing

MAX_SIZE = 1 << 20  # bytes of a file
SUFFIXES = (".cer", ".crt", ".der", ".p7b", ".p7c", ".pem")
BEGIN = b"-----BEGIN "
BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
BEGIN_PKCS7 = b"-----BEGIN PKCS7-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCertificate:
    """A certificate and the file that holds it."""

    path: Path
    certificate: x509.Certificate


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate of a file; raises PkiError if it holds no certificate or is unreadable."""
    found = _parse_certificates(path, _read(path))
    if not found:
        raise PkiError(f"{path}: holds no certificate (supported formats: PEM, DER, PKCS#7)")
    return found


def find_certificates(paths: Iterable[Path]) -> tuple[tuple[FoundCertificate, ...], list[str]]:
    """The certificates of files and directories, and every fault.

    In a directory, files of other kinds are no fault: requests may be in the same directory.
    """
    found: list[FoundCertificate] = []
    faults: list[str] = []
    for path in paths:
        files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else []
        for file in files or [path]:
            try:
                certificates = (
                    _parse_certificates(file, _read(file))
                    if path.is_dir() and _may_be_other(file)
                    else read_certificates(file)
                )
            except PkiError as error:
                faults.append(error.message)
            else:
                found += [FoundCertificate(path=file, certificate=one) for one in certificates]
    return tuple(found), faults


def read_private_key(path: Path, ask: Callable[[], str]) -> issuing.PrivateKey:
    """Read an ECDSA or RSA key; `ask` returns the passphrase if the key is encrypted."""
    content = _read(path)
    load = load_pem_private_key if BEGIN in content else load_der_private_key
    try:
        try:
            key = load(content, None)
        except TypeError:  # it is encrypted
            key = load(content, ask().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PkiError(
            f"{path}: not a readable private key, or the passphrase is wrong",
            hint=f"check whether openssl can read it: openssl pkey -in {path} -noout",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PkiError(f"{path}: expected an ECDSA or RSA key")
    return key


def _may_be_other(file: Path) -> bool:
    """Whether a file of a directory may be something other than a certificate."""
    if file.suffix.lower() not in SUFFIXES:
        return True
    content = _read(file)
    return BEGIN in content and BEGIN_CERTIFICATE not in content and BEGIN_PKCS7 not in content


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_SIZE:
            raise PkiError(f"{path}: larger than {MAX_SIZE >> 20} MiB, too large for a certificate")
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path}: cannot read: {error.strerror}") from error


def _parse_certificates(path: Path, content: bytes) -> tuple[x509.Certificate, ...]:
    """Parse the certificates of a file completely; empty if it holds something else."""
    with warnings.catch_warnings():
        # Warnings are about unusual encodings; certificate_rules.py checks what matters.
        warnings.simplefilter("ignore")
        try:
            found = tuple(_load(content))
            for certificate in found:
                declarations.read_content(certificate)  # raises if an extension is malformed
                certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise PkiError(f"{path}: holds a certificate that cannot be read: {error}") from error
    return found


def _load(content: bytes) -> Iterable[x509.Certificate]:
    if BEGIN_CERTIFICATE in content:
        return x509.load_pem_x509_certificates(content)
    if BEGIN_PKCS7 in content:
        return pkcs7.load_pem_pkcs7_certificates(content)
    if not content.startswith(b"\x30"):  # ASN.1 sequence: both DER formats begin with it
        return ()
    try:
        return (x509.load_der_x509_certificate(content),)
    except ValueError:
        pass
    try:
        return pkcs7.load_der_pkcs7_certificates(content)
    except (ValueError, UnsupportedAlgorithm):
        return ()
