"""List the certificates and pending requests of a state directory or bundle, and when they end."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from cryptography import x509

from bundler.errors import ConfigError, PkiError
from bundler.formats.bundle_archives import explain_damage, read_tar_gz
from bundler.pki.ca_origins import CHAIN, DESCRIPTIONS, REQUEST, read_origin
from bundler.pki.live import list_names
from bundler.state.directory import check_is_state, recover_state

MAX_SIZE = 1 << 20  # bytes; larger files hold no certificates
EMBEDDED = {
    ".kubeconfig": re.compile(r"^ *client-certificate-data: (\S+)$", re.MULTILINE),
    ".yaml": re.compile(r"^ *tls\.crt: (\S{32,})$", re.MULTILINE),  # a Secret (metrics-server)
}
"""Files that embed certificates in base64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateEntry:
    """One certificate and where it was found."""

    path: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_after: datetime
    days_left: int  # negative if it has ended
    note: str = ""  # the origin of an external CA


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """A request whose signed certificate is not imported yet."""

    path: str
    subject: str


def parse_days(option: str, text: str) -> int:
    """Parse `60d` or `60`; raises ConfigError that names the option."""
    match = re.fullmatch(r"(\d{1,5})d?", text)
    if not match:
        raise ConfigError(f"{option} {text}: expected a number of days, such as 60d")
    return int(match[1])


def list_state_certificates(directory: Path, now: datetime) -> tuple[CertificateEntry, ...]:
    """Every certificate of a state directory, the earliest end first; creates nothing."""
    check_is_state(directory)
    recover_state(directory)
    found = []
    for path in sorted((directory / "pki").rglob("cert.pem")):
        try:
            origin = DESCRIPTIONS[read_origin(path.parent)]
            place = path.parent.relative_to(directory)
            entries = _describe(str(place), path.read_bytes(), now)
            found += [replace(entry, note=origin) for entry in entries]
            chain = path.with_name(CHAIN)
            if chain.exists():
                above = _describe(str(place / CHAIN), chain.read_bytes(), now)
                found += [replace(entry, note=f"issuer of {place.name}") for entry in above]
        except OSError as error:
            raise PkiError(f"{path}: {error.strerror}") from error
    return _sorted(found)


def list_requests(directory: Path) -> tuple[PendingRequest, ...]:
    """Every pending request of a state directory."""
    found = []
    for path in sorted((directory / "pki").rglob(REQUEST)):
        try:
            request = x509.load_pem_x509_csr(path.read_bytes())
        except (OSError, ValueError) as error:
            raise PkiError(f"{path}: not a certificate request in PEM") from error
        place = str(path.parent.relative_to(directory))
        found.append(PendingRequest(path=place, subject=request.subject.rfc4514_string()))
    return tuple(found)


def list_bundle_certificates(path: Path, now: datetime) -> tuple[CertificateEntry, ...]:
    """Every certificate of a bundle or of its volumes, the earliest end first.

    Certificates in kubeconfigs and Secrets are included.
    """
    found = []
    with explain_damage(path):
        for name, _, content in read_tar_gz(path):
            if not name.endswith((".crt", *EMBEDDED)):
                continue
            text = content.read(MAX_SIZE + 1)
            if len(text) <= MAX_SIZE:
                found += [e for pem in _find_pem(name, text) for e in _describe(name, pem, now)]
    return _sorted(found)


def _find_pem(name: str, content: bytes) -> Iterator[bytes]:
    if name.endswith(".crt"):
        yield content
        return
    for match in EMBEDDED[PurePosixPath(name).suffix].finditer(content.decode(errors="replace")):
        try:
            yield base64.b64decode(match[1])
        except binascii.Error as error:
            raise PkiError(f"{name}: not a certificate in base64") from error


def _describe(path: str, pem: bytes, now: datetime) -> list[CertificateEntry]:
    """Every certificate of a file: server certificate files also hold intermediate CAs."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise PkiError(f"{path}: not a certificate in PEM") from error
    return [
        CertificateEntry(
            path=path,
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            names=list_names(certificate),
            not_after=certificate.not_valid_after_utc,
            days_left=(certificate.not_valid_after_utc - now).days,
        )
        for certificate in certificates
    ]


def _sorted(entries: list[CertificateEntry]) -> tuple[CertificateEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.not_after, entry.path)))
