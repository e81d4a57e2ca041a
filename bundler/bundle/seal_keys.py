"""The keys of seals in the state directory, which make sealed builds the same bytes every time.

    seals/NODE                 the unseal code of each node
    sealed-to/NODE/            for `--seal-to`: certificate, code, and envelope (the code in CMS)

A code that is encrypted to a certificate is not the node's code on paper: who has one of them
cannot open what the other opens.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

from bundler.bundle.layout import Media
from bundler.bundle.seal import SealKey
from bundler.bundle.unseal_code import format_code, make_code, parse_code
from bundler.errors import ConfigError, PkiError
from bundler.render.bundle_manifest import BundleManifest
from bundler.state.directory import RESTORE, State, recover_state
from bundler.state.transaction import write_transaction

CODES, RECIPIENTS = "seals", "sealed-to"
CERTIFICATE, CODE, ENVELOPE = "certificate", "code", "envelope"
MIN_KEY = 2048  # bits
HOW = (
    "make a key and a certificate on the host: openssl req -x509 -newkey rsa:3072 -nodes -days 3650"
    " -subj /CN=NODE -keyout unseal.key -out NODE.crt"
)

Recipients = Mapping[str, x509.Certificate | None]
"""Node → the certificate that its bundle is sealed to; None: a person brings the code."""


def choose_recipients(
    media: Media, nodes: Iterable[str], bases: Mapping[str, BundleManifest], state: Path
) -> Recipients:
    """Choose how the bundle of each node is sealed; empty if none is.

    Without an option, the bundles of a build are sealed if a base of `--since` is, and in the same
    way. Raises ConfigError for a wrong `--seal-to`.
    """
    names = tuple(nodes)
    given = dict(_read_option(text, names) for text in media.seal_to)
    seals = {node: base.seal for node, base in bases.items() if base.seal}
    if media.seal or given:
        return {node: given.get(node) for node in names}
    if media.seal is False or not seals:
        return {}
    former = {node: seal.recipient for node, seal in seals.items()}
    return {node: _find_former(state, node, former.get(node, "")) for node in names}


def ensure_seal_keys(state: State, recipients: Recipients) -> dict[str, SealKey]:
    """Load or make the key of each node; a key for another certificate is replaced."""
    return {
        node: _ensure_envelope(state, node, certificate)
        if certificate
        else SealKey(code=_ensure_code(state, node))
        for node, certificate in recipients.items()
    }


def renew_codes(state: State, nodes: Iterable[str]) -> None:
    """Replace the keys of nodes: what was built before keeps its code, later builds have new ones.

    All or nothing.
    """
    files = {}
    for node in nodes:
        files[f"{CODES}/{node}"] = _encode(make_code())
        place = state.directory / RECIPIENTS / node / CERTIFICATE
        if place.exists():
            files |= _make_envelope(node, _parse_certificate(state.read_file(place), place))
    write_transaction(state.directory, files)


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate: what `openssl x509 -fingerprint` shows with colons."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _read_option(text: str, nodes: tuple[str, ...]) -> tuple[str, x509.Certificate]:
    """Read NODE=CERT."""
    node, equals, name = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--seal-to {text}: must be NODE=CERT", hint=HOW)
    if node not in nodes:
        raise ConfigError(
            f"--seal-to {text}: there is no node {node}", hint=f"the nodes are {', '.join(nodes)}"
        )
    try:
        content = Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"--seal-to {text}: {error.strerror}", hint=HOW) from error
    return node, _parse_certificate(content, f"--seal-to {text}")


def _parse_certificate(content: bytes, where: str | Path) -> x509.Certificate:
    """Parse a certificate in PEM; raises ConfigError unless a CMS can be encrypted to it."""
    if b"PRIVATE KEY-----" in content:
        raise ConfigError(
            f"{where}: holds a private key, which must never leave its host",
            hint="make a new key there, and give only the certificate",
        )
    try:
        certificate = x509.load_pem_x509_certificate(content)
        key = certificate.public_key()
    except ValueError as error:
        raise ConfigError(f"{where}: not a certificate in PEM", hint=HOW) from error
    if not isinstance(key, RSAPublicKey) or key.key_size < MIN_KEY:
        raise ConfigError(f"{where}: needs an RSA key of at least {MIN_KEY} bits", hint=HOW)
    return certificate


def _find_former(state: Path, node: str, recipient: str) -> x509.Certificate | None:
    """Return the certificate of an earlier build, which is in the state directory."""
    if not recipient:
        return None
    recover_state(state)
    place = state / RECIPIENTS / node / CERTIFICATE
    found = _parse_certificate(place.read_bytes(), place) if place.is_file() else None
    if not found or fingerprint(found) != recipient:
        raise ConfigError(
            f"{node}: the bundle of --since is sealed to the certificate {recipient[:16]}…, which"
            " is not in the state directory",
            hint=f"give --seal-to {node}=CERT, or --seal to seal with an unseal code",
        )
    return found


def _ensure_code(state: State, node: str) -> str:
    path = state.directory / CODES / node
    if not path.exists():
        state.make_directory(path.parent)
        state.write_file(path, _encode(make_code()))
    return _read_code(state, path)


def _ensure_envelope(state: State, node: str, certificate: x509.Certificate) -> SealKey:
    place = state.directory / RECIPIENTS / node
    wanted = certificate.public_bytes(Encoding.PEM)
    if not place.is_dir() or state.read_file(place / CERTIFICATE) != wanted:
        write_transaction(state.directory, _make_envelope(node, certificate))
    return SealKey(
        code=_read_code(state, place / CODE),
        envelope=state.read_file(place / ENVELOPE),
        recipient=fingerprint(certificate),
    )


def _make_envelope(node: str, certificate: x509.Certificate) -> dict[str, bytes]:
    """Make a code for a certificate. CMS is random, so it is kept: builds have the same bytes."""
    code = _encode(make_code())
    envelope = (
        PKCS7EnvelopeBuilder()
        .set_data(code)
        .add_recipient(certificate)
        .set_content_encryption_algorithm(AES256)
        .encrypt(Encoding.DER, [PKCS7Options.Binary])
    )
    files = {
        CERTIFICATE: certificate.public_bytes(Encoding.PEM), CODE: code, ENVELOPE: envelope,
    }  # fmt: skip
    return {f"{RECIPIENTS}/{node}/{name}": content for name, content in files.items()}


def _encode(code: str) -> bytes:
    return f"{format_code(code)}\n".encode()


def _read_code(state: State, path: Path) -> str:
    code = parse_code(state.read_file(path).decode(errors="replace"))
    if not code:
        raise PkiError(f"{path}: not an unseal code", hint=RESTORE)
    return code
