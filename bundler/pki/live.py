"""Fetch the certificates that TLS servers present, and check them.

The client presents no certificate. TLS 1.2 transmits server certificates unencrypted, so they are
read from the received bytes (RFC 5246, 6.2.1 and 7.4) even if the server then refuses the handshake
because it requires a client certificate, as etcd does. TLS 1.3 is used only for servers that refuse
TLS 1.2: there the client finishes the handshake before the server can refuse it.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from bundler.errors import BundlerError
from bundler.pki.chains import is_issued_by
from bundler.pki.extensions import find_extension

TIMEOUT = 5.0  # seconds, for the connection and for each answer
MAX_SIZE = 1 << 20  # bytes of a handshake
HANDSHAKE_RECORD = 22
CERTIFICATE_MESSAGE = 11


class UnreachableError(BundlerError):
    """The server sent no certificate; the message has the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, and the certificate that it should present."""

    host: str
    port: int
    title: str = ""  # such as `kube-apiserver of master1`
    ca: str | None = None  # that must have signed it; None: any trusted CA
    certificate: str | None = None  # its name in the state directory, if it is from there

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFinding:
    """The certificate that an endpoint presented, and its faults."""

    endpoint: Endpoint
    certificate: x509.Certificate | None
    known_as: str | None  # the certificate's name in the state directory
    faults: tuple[str, ...]


def check_endpoint(
    endpoint: Endpoint,
    cas: Mapping[str, Sequence[x509.Certificate]],
    known: Mapping[str, x509.Certificate],
    now: datetime,
) -> EndpointFinding:
    """Fetch the certificate of a server and check it.

    `cas` are the trusted CAs (more than one during a rotation) and `known` the certificates of the
    state directory, both by name.
    """
    try:
        chain = fetch_chain(endpoint.host, endpoint.port)
    except UnreachableError as error:
        return EndpointFinding(
            endpoint=endpoint, certificate=None, known_as=None, faults=(error.message,)
        )
    found = fingerprint(chain[0])
    known_as = next((name for name, own in known.items() if fingerprint(own) == found), None)
    return EndpointFinding(
        endpoint=endpoint,
        certificate=chain[0],
        known_as=known_as,
        faults=tuple(_find_faults(endpoint, chain, cas, known, known_as, now)),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 in hexadecimal."""
    return certificate.fingerprint(SHA256()).hex()


def list_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The subject alternative names as text."""
    names = find_extension(certificate, x509.SubjectAlternativeName)
    return tuple(str(name.value) for name in names or ())


def fetch_chain(host: str, port: int) -> tuple[x509.Certificate, ...]:
    """The certificates that a server presents, its own first; raises UnreachableError if none."""
    try:
        encoded = _fetch(host, port, ssl.TLSVersion.TLSv1_2) or _fetch(
            host, port, ssl.TLSVersion.TLSv1_3
        )
    except OSError as error:
        raise UnreachableError(f"no answer: {error.strerror or error}") from error
    except ValueError as error:  # from idna, and from ssl for a name that begins with a dot
        raise UnreachableError(f"{host} is not a host name: {error}") from error
    if not encoded:
        raise UnreachableError("the server sent no certificate; is it a TLS server?")
    try:
        return tuple(x509.load_der_x509_certificate(one) for one in encoded)
    except ValueError as error:
        raise UnreachableError("the server sent a malformed certificate") from error


def _fetch(host: str, port: int, version: ssl.TLSVersion) -> list[bytes]:
    """The certificates (DER) of a handshake of that version; with TLS 1.3 only the server's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # _find_faults checks the certificate instead
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
    """All bytes that the server sent, and whether the handshake completed."""
    received = b""
    while len(received) < MAX_SIZE:
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
    """The DER certificates of the first Certificate message (TLS 1.2 or earlier)."""
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
    """The contents of handshake records; each has a header with type, version and length."""
    while len(received) >= 5:
        kind, size = received[0], int.from_bytes(received[3:5], "big")
        if kind != HANDSHAKE_RECORD:
            return
        yield received[5 : 5 + size]
        received = received[5 + size :]


def _find_faults(
    endpoint: Endpoint,
    chain: Sequence[x509.Certificate],
    cas: Mapping[str, Sequence[x509.Certificate]],
    known: Mapping[str, x509.Certificate],
    known_as: str | None,
    now: datetime,
) -> Iterator[str]:
    leaf = chain[0]
    if leaf.not_valid_after_utc <= now:
        yield f"ended on {leaf.not_valid_after_utc:%Y-%m-%d}"
    if leaf.not_valid_before_utc > now:
        yield f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    wanted = [endpoint.ca] if endpoint.ca else list(cas)
    trusted = [ca for name in wanted for ca in cas[name]]
    if not any(_ends_in(chain, ca) for ca in trusted):
        issuer = leaf.issuer.rfc4514_string()
        yield f"signed by {issuer}, which is not the trusted {' or '.join(wanted)}"
    names = list_names(leaf)
    if endpoint.host not in names:
        yield f"is not valid for {endpoint.host}; its names: {', '.join(names) or 'none'}"
    if endpoint.certificate and endpoint.certificate in known and known_as != endpoint.certificate:
        yield (
            f"is not {endpoint.certificate} of the state directory: the host has another bundle"
            " installed, or the program has not reloaded the file"
        )


def _ends_in(chain: Sequence[x509.Certificate], ca: x509.Certificate) -> bool:
    """Whether the CA signed the first certificate of the chain, directly or through the others."""
    current, others = chain[0], list(chain[1:])
    while True:
        if is_issued_by(current, ca):
            return True
        issuer = next((other for other in others if is_issued_by(current, other)), None)
        if not issuer:
            return False
        others.remove(issuer)
        current = issuer


def _is_ip(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True
