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
    """Write PATH (0600) and the public key next to it (.pub); return the path of the public key.

    Raises OutputError if one exists, if both names are the same, or if writing fails.
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
                raise OutputError(
                    f"{target}: exists; bundler does not overwrite keys",
                    hint="choose another name, or move the old pair away",
                )
        write_atomically(path, private_pem)
        write_atomically(public, public_pem, mode=0o644)
    return public


def _public_path(path: Path) -> Path:
    """Replace the suffix of PATH with .pub; raise OutputError if that is PATH itself."""
    if not path.name:
        raise OutputError(f"{path}: is not a file name", hint=_HOW)
    if path.suffix.lower() == ".pub":  # some file systems ignore case
        raise OutputError(
            f"{path}: .pub is for the public key, which would overwrite the private key",
            hint=f"name the private key: bundler keygen {path.with_suffix('.key')}",
        )
    return path.with_suffix(".pub")


def load_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load a private key; raise ConfigError if others can read it, or it is not a P-256 key."""
    data = _read(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            f"{path}: other users can read this private key", hint=f"chmod 600 {path}"
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a private key in PEM ({error})", hint=_HOW) from error
    except UnsupportedAlgorithm as error:
        raise _not_p256(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise _not_p256(path)
    return key


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Load a public key; raise ConfigError if it is not a P-256 key."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not a public key in PEM", hint=_HOW) from error
    except UnsupportedAlgorithm as error:
        raise _not_p256(path) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise _not_p256(path)
    return key


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return a DER signature, the same for the same key and data."""
    return key.sign(data, _ALGORITHM)


def is_signed_by(key: ec.EllipticCurvePublicKey, data: bytes, signature: bytes) -> bool:
    """Whether `signature` is of these bytes and by this key."""
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
