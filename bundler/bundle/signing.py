"""Signatures over manifests: ECDSA P-256 with SHA-256, which any openssl from 1.0.2 on verifies.

`openssl dgst -sha256 -verify KEY.pub -signature MANIFEST.sig MANIFEST`. Signing is deterministic
(RFC 6979), so signed bundles are byte-identical too.
"""

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundler.errors import ConfigError, OutputError
from bundler.files import explain_disk_faults, write_atomically

SIGNATURE = "MANIFEST.sig"
SUMS_SIGNATURE = "SHA256SUMS.sig"
_ALGORITHM = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def generate_key(path: Path) -> Path:
    """Write PATH (0600) and PATH's .pub; the public key's path.

    OutputError where one exists, where both would be one file, or where neither can be written.
    """
    public = _public_path(path)
    key = ec.generate_private_key(ec.SECP256R1())
    private_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with explain_disk_faults(path):
        for target in (path, public):
            if target.exists():
                raise OutputError(f"{target}: exists already, and keys are never overwritten")
        write_atomically(path, private_pem)
        write_atomically(public, public_pem, mode=0o644)
    return public


def _public_path(path: Path) -> Path:
    """PATH with .pub in the place of its suffix; OutputError where that is PATH itself."""
    if not path.name:
        raise OutputError(f"{path}: names no file", hint=_HOW)
    if path.suffix.lower() == ".pub":  # some file systems do not tell X.PUB from x.pub
        raise OutputError(
            f"{path}: is the public key's name, and the private key would be overwritten by it",
            hint=f"name the private key: bundler keygen {path.with_suffix('.key')}",
        )
    return path.with_suffix(".pub")


def load_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key; ConfigError where it is open to others, or no P-256 key."""
    data = _read(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: open to other users", hint=f"chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: no private key in PEM ({error})", hint=_HOW) from error
    except UnsupportedAlgorithm as error:
        raise _not_p256(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise _not_p256(path)
    return key


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """A public key; ConfigError where it is none of P-256."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: no public key in PEM", hint=_HOW) from error
    except UnsupportedAlgorithm as error:
        raise _not_p256(path) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise _not_p256(path)
    return key


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """A DER signature; the same for the same key and data."""
    return key.sign(data, _ALGORITHM)


def is_signed_by(key: ec.EllipticCurvePublicKey, data: bytes, signature: bytes) -> bool:
    """Whether the key's owner signed exactly these bytes."""
    try:
        key.verify(signature, data, _ALGORITHM)
    except InvalidSignature:
        return False
    return True


_HOW = "make a pair with: bundler keygen release.key"


def _not_p256(path: Path) -> ConfigError:
    return ConfigError(f"{path}: not an ECDSA P-256 key", hint=_HOW)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint=_HOW) from error
