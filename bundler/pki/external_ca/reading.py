"""Certificates and keys out of files, in the forms that PKI departments hand them out.

Certificates: PEM (one or many, with text around them), DER, PKCS#7 of either kind (.p7b).
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

LARGEST = 1 << 20  # bytes of a file
SUFFIXES = (".cer", ".crt", ".der", ".p7b", ".p7c", ".pem")
BEGIN = b"-----BEGIN "
BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
BEGIN_PKCS7 = b"-----BEGIN PKCS7-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCertificate:
    """A certificate and the file that it was in."""

    path: Path
    certificate: x509.Certificate


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate of a file; PkiError where there is none or it cannot be read."""
    found = _parse_certificates(path, _read(path))
    if not found:
        raise PkiError(f"{path}: no certificate in it (PEM, DER and PKCS#7 are read)")
    return found


def find_certificates(paths: Iterable[Path]) -> tuple[tuple[FoundCertificate, ...], list[str]]:
    """Those of all files, and of the files in directories that have any; and all faults.

    In a directory, other files than certificates are nobody's fault: requests lie there, too.
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
    """An ECDSA or RSA key; `ask` is called for the passphrase of an encrypted one."""
    content = _read(path)
    load = load_pem_private_key if BEGIN in content else load_der_private_key
    try:
        try:
            key = load(content, None)
        except TypeError:  # it is encrypted
            key = load(content, ask().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PkiError(
            f"{path}: not a private key that can be read, or the passphrase is wrong",
            hint=f"openssl pkey -in {path} -noout tells whether openssl can read it",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PkiError(f"{path}: expected an ECDSA or RSA key")
    return key


def _may_be_other(file: Path) -> bool:
    """In a directory: whether it may well be something else than a certificate."""
    if file.suffix.lower() not in SUFFIXES:
        return True
    content = _read(file)
    return BEGIN in content and BEGIN_CERTIFICATE not in content and BEGIN_PKCS7 not in content


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise PkiError(f"{path}: too large for certificates and keys")
        return path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path}: cannot be read: {error.strerror}") from error


def _parse_certificates(path: Path, content: bytes) -> tuple[x509.Certificate, ...]:
    """Those that are there, each wholly readable; none where the file is something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forms that are odd; what counts is checked by us
        try:
            found = tuple(_load(content))
            for certificate in found:
                declarations.read_content(certificate)  # its extensions can be read, too
                certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise PkiError(f"{path}: a certificate in it cannot be read: {error}") from error
    return found


def _load(content: bytes) -> Iterable[x509.Certificate]:
    if BEGIN_CERTIFICATE in content:
        return x509.load_pem_x509_certificates(content)
    if BEGIN_PKCS7 in content:
        return pkcs7.load_pem_pkcs7_certificates(content)
    if not content.startswith(b"\x30"):  # an ASN.1 sequence, with which both forms of DER begin
        return ()
    try:
        return (x509.load_der_x509_certificate(content),)
    except ValueError:
        pass
    try:
        return pkcs7.load_der_pkcs7_certificates(content)
    except (ValueError, UnsupportedAlgorithm):
        return ()
