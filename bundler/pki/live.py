"""Certificates as servers show them: a TLS handshake from here, and what is wrong with what came.

No client certificate is shown. In TLS 1.2 a server's certificates come in the clear, so they are
read out of what it sent (RFC 5246, 6.2.1 and 7.4), though one that insists on a client certificate
(etcd's members do) then ends the handshake. Only servers that refuse TLS 1.2 are asked by TLS 1.3,
where a client ends the handshake before the server refuses.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256

from bundler.errors import BundlerError

TIMEOUT = 5.0  # seconds, for the connection and for each answer
MOST = 1 << 20  # bytes of a handshake
HANDSHAKE_RECORD = 22
CERTIFICATE_MESSAGE = 11


class UnreachableError(BundlerError):
    """No certificate came; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, and what it should show."""

    host: str
    port: int
    title: str = ""  # such as `kube-apiserver of master1`
    authority: str | None = None  # who must have signed it; None: any that is believed
    certificate: str | None = None  # its name in the state directory, where it is of there

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an endpoint showed, and every fault of it."""

    endpoint: Endpoint
    certificate: x509.Certificate | None
    known_as: str | None  # the certificate's name in the state directory
    faults: tuple[str, ...]


def check_endpoint(
    endpoint: Endpoint,
    authorities: Mapping[str, Sequence[x509.Certificate]],
    known: Mapping[str, x509.Certificate],
    now: datetime,
) -> Finding:
    """Ask a server for its certificate and judge it.

    `authorities` are those that are believed (several while new ones come in), `known` the state's
    certificates, both by name.
    """
    try:
        chain = fetch_chain(endpoint.host, endpoint.port)
    except UnreachableError as error:
        return Finding(endpoint=endpoint, certificate=None, known_as=None, faults=(error.message,))
    shown = fingerprint(chain[0])
    known_as = next((name for name, own in known.items() if fingerprint(own) == shown), None)
    return Finding(
        endpoint=endpoint,
        certificate=chain[0],
        known_as=known_as,
        faults=tuple(_find_faults(endpoint, chain, authorities, known, known_as, now)),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 in hexadecimal."""
    return certificate.fingerprint(SHA256()).hex()


def list_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The SANs as text."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def fetch_chain(host: str, port: int) -> tuple[x509.Certificate, ...]:
    """The certificates that a server shows, its own first; UnreachableError where none came."""
    try:
        encoded = _ask(host, port, ssl.TLSVersion.TLSv1_2) or _ask(
            host, port, ssl.TLSVersion.TLSv1_3
        )
    except OSError as error:
        raise UnreachableError(f"no answer: {error.strerror or error}") from error
    except ValueError as error:  # of idna, and of ssl for what begins with a dot
        raise UnreachableError(f"{host} is no host's name: {error}") from error
    if not encoded:
        raise UnreachableError("no certificate came: is it TLS that is spoken there?")
    try:
        return tuple(x509.load_der_x509_certificate(one) for one in encoded)
    except ValueError as error:
        raise UnreachableError("what came is no certificate") from error


def _ask(host: str, port: int, version: ssl.TLSVersion) -> list[bytes]:
    """The server's certificates (DER) in a handshake of that version; of TLS 1.3 only its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what is shown is judged here, whatever it is
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=None if _is_ip(host) else host)
    with socket.create_connection((host, port), TIMEOUT) as connection:
        received, is_done = _shake_hands(tls, incoming, outgoing, connection)
    if version is ssl.TLSVersion.TLSv1_2:
        return list(_read_certificates(received))
    own = tls.getpeercert(binary_form=True) if is_done else None
    return [own] if own else []


def _shake_hands(
    tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, connection: socket.socket
) -> tuple[bytes, bool]:
    """All bytes that the server sent, and whether the handshake came to its end."""
    received = b""
    while len(received) < MOST:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
        except ssl.SSLError:
            break
        else:
            return received, True
        try:
            data = connection.recv(1 << 14)
        except ConnectionResetError:
            break
        if not data:
            break
        received += data
        incoming.write(data)
    return received, False


def _read_certificates(received: bytes) -> Iterator[bytes]:
    """The DER certificates of the first Certificate message in records of TLS up to 1.2."""
    messages = b"".join(_list_records(received))
    while len(messages) >= 4:
        kind, size = messages[0], int.from_bytes(messages[1:4], "big")
        body, messages = messages[4 : 4 + size], messages[4 + size :]
        if kind == CERTIFICATE_MESSAGE and len(body) == size:
            chain = body[3:]
            while len(chain) >= 3:
                length = int.from_bytes(chain[:3], "big")
                yield chain[3 : 3 + length]
                chain = chain[3 + length :]
            return


def _list_records(received: bytes) -> Iterator[bytes]:
    """The contents of handshake records, each behind type, version and length."""
    while len(received) >= 5:
        kind, size = received[0], int.from_bytes(received[3:5], "big")
        if kind != HANDSHAKE_RECORD:
            return
        yield received[5 : 5 + size]
        received = received[5 + size :]


def _find_faults(
    endpoint: Endpoint,
    chain: Sequence[x509.Certificate],
    authorities: Mapping[str, Sequence[x509.Certificate]],
    known: Mapping[str, x509.Certificate],
    known_as: str | None,
    now: datetime,
) -> Iterator[str]:
    leaf = chain[0]
    if leaf.not_valid_after_utc <= now:
        yield f"ended on {leaf.not_valid_after_utc:%Y-%m-%d}"
    if leaf.not_valid_before_utc > now:
        yield f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    wanted = [endpoint.authority] if endpoint.authority else list(authorities)
    believed = [authority for name in wanted for authority in authorities[name]]
    if not any(_ends_in(chain, authority) for authority in believed):
        issuer = leaf.issuer.rfc4514_string()
        yield f"signed by {issuer}, which is not the {' or '.join(wanted)} that is believed"
    names = list_names(leaf)
    if endpoint.host not in names:
        yield f"does not name {endpoint.host}, but {', '.join(names) or 'no host at all'}"
    if endpoint.certificate and endpoint.certificate in known and known_as != endpoint.certificate:
        yield (
            f"is not {endpoint.certificate} of the state directory: the host has another bundle, or"
            " its program has not reread the file"
        )


def _ends_in(chain: Sequence[x509.Certificate], authority: x509.Certificate) -> bool:
    """Whether the authority signed the first, or one that signed it, by the others of the chain."""
    at, others = chain[0], list(chain[1:])
    while True:
        if _is_signed_by(at, authority):
            return True
        above = next((other for other in others if _is_signed_by(at, other)), None)
        if above is None:
            return False
        others.remove(above)
        at = above


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_ip(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True
