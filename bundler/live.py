"""Certificates as servers show them: who signed them, what they name, if they are the state's."""

import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from bundler import pki
from bundler.components import API_PORT
from bundler.config import Role
from bundler.errors import ConfigError, PkiError
from bundler.plan import Plan

PATIENCE = 5.0  # seconds
TOGETHER = 16  # servers that are asked at a time
CLIENT = "etcd-healthcheck-client"
"""etcd ends a handshake of TLS 1.2, and nothing is seen then, unless a client shows this."""

SERVERS: tuple[tuple[Role, int, str], ...] = (
    (Role.ETCD, 2379, "etcd's clients"),
    (Role.ETCD, 2380, "etcd's members"),
    (Role.CONTROL_PLANE, API_PORT, "kube-apiserver"),
    (Role.CONTROL_PLANE, 10257, "kube-controller-manager"),
    (Role.CONTROL_PLANE, 10259, "kube-scheduler"),
    (Role.WORKER, 10250, "kubelet"),
)
"""What listens with a certificate on which nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one server shows."""

    address: str  # HOST:PORT
    server: str  # what listens there, if it is the plan's
    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    not_after: datetime | None = None
    days_left: int | None = None
    authority: str = ""  # of the state, that signed it
    stored: str = ""  # where in the state this very certificate is; a kubelet's is not
    faults: tuple[str, ...] = ()


def list_servers(plan: Plan) -> tuple[tuple[str, str], ...]:
    """HOST:PORT and what listens there, of everything that the plan has, the endpoint included."""
    found = {
        f"{node.address}:{port}": server
        for role, port, server in SERVERS
        for node in plan.having(role)
    }
    if not plan.is_node_local:
        found.setdefault(f"{plan.endpoint_host}:{plan.endpoint_port}", "the API's endpoint")
    return tuple(found.items())


def look_at_all(servers: Sequence[tuple[str, str]], state: Path, now: datetime) -> tuple[Seen, ...]:
    """What each of HOST:PORT shows, in order; nothing is sent but a handshake.

    `state` is the cluster's state directory: its authorities are who must have signed.
    """
    stored = _load_stored(state)
    authorities = {
        name: certificate
        for name in pki.AUTHORITIES
        for path, certificate in stored.items()
        if path == f"pki/{name}"
    }
    if not authorities:
        raise PkiError(f"{state}: holds no authority", hint="give it with --state, or build once")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # whoever it is, it is shown
    client = state / "pki" / CLIENT
    if client.is_dir():
        context.load_cert_chain(client / "cert.pem", client / "key.pem")
    parsed = [(*_split(address), server) for address, server in servers]

    def look(target: tuple[str, int, str]) -> Seen:
        host, port, server = target
        try:
            certificate = _shake_hands(host, port, context)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            return Seen(
                address=f"{host}:{port}", server=server, faults=(f"no certificate: {reason}",)
            )
        return _judge(host, port, server, certificate, authorities, stored, now)

    with ThreadPoolExecutor(TOGETHER) as pool:
        return tuple(pool.map(look, parsed))


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{address}: expected HOST:PORT, such as 192.0.2.11:6443")
    return host.strip("[]"), int(port)


def _load_stored(state: Path) -> dict[str, x509.Certificate]:
    found = {}
    for path in sorted((state / "pki").rglob("cert.pem")):
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise PkiError(f"{path}: cannot be read as a certificate") from error
        found[path.parent.relative_to(state).as_posix()] = certificate
    return found


def _shake_hands(host: str, port: int, context: ssl.SSLContext) -> x509.Certificate:
    with (
        socket.create_connection((host, port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
    if shown is None:
        raise ValueError("it shows none")
    return x509.load_der_x509_certificate(shown)


def _judge(
    host: str,
    port: int,
    server: str,
    certificate: x509.Certificate,
    authorities: dict[str, x509.Certificate],
    stored: dict[str, x509.Certificate],
    now: datetime,
) -> Seen:
    names = _names_of(certificate)
    signer = next((n for n, a in authorities.items() if _has_signed(a, certificate)), "")
    faults = []
    if not signer:
        faults.append("none of the state's authorities signed it")
    if host not in names:
        faults.append(f"it does not name {host}")
    if certificate.not_valid_after_utc <= now:
        faults.append("it has ended")
    if certificate.not_valid_before_utc > now:
        faults.append(f"it begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only")
    return Seen(
        address=f"{host}:{port}",
        server=server,
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=names,
        not_after=certificate.not_valid_after_utc,
        days_left=(certificate.not_valid_after_utc - now).days,
        authority=signer,
        stored=next((path for path, each in stored.items() if each == certificate), ""),
        faults=tuple(faults),
    )


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
