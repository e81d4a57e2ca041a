"""Files with CA certificates, a client certificate, its key or a token: what is wrong with them."""

import re
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

MOST_BYTES = 1 << 20
TOKEN = re.compile(rb"[\x21-\x7e]{1,16384}\n?")


def find_ca_faults(path: Path) -> Iterator[str]:
    """Yield why a file cannot be a list of CA certificates."""
    try:
        content = _read(path)
        if b"PRIVATE KEY" in content:
            yield f"{path}: has a private key: keep only certificates"
        elif not x509.load_pem_x509_certificates(content):
            yield f"{path}: has no certificate"
    except OSError as error:
        yield f"{path}: {error.strerror or error}"
    except ValueError:
        yield f"{path}: must be a PEM file with certificates"


def find_pair_faults(certificate: Path, key: Path) -> Iterator[str]:
    """Yield why two files cannot be a client certificate and its key."""
    try:
        first = x509.load_pem_x509_certificates(_read(certificate))[0]
    except OSError as error:
        yield f"{certificate}: {error.strerror or error}"
        return
    except (ValueError, IndexError):
        yield f"{certificate}: must be a PEM file with a certificate"
        return
    try:
        private = load_pem_private_key(_read(key), password=None)
    except OSError as error:
        yield f"{key}: {error.strerror or error}"
    except TypeError:
        yield f"{key}: is encrypted, and API servers cannot ask for a password: decrypt it"
    except (ValueError, UnsupportedAlgorithm):
        yield f"{key}: must be a PEM file with a private key"
    else:
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if first.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
            yield f"{key}: is not the key of {certificate}"


def find_token_faults(path: Path) -> Iterator[str]:
    """Yield why a file cannot hold a bearer token."""
    try:
        if not TOKEN.fullmatch(_read(path)):
            yield f"{path}: must hold one line with a token, without spaces"
    except OSError as error:
        yield f"{path}: {error.strerror or error}"


def _read(path: Path) -> bytes:
    """The content of a small file; a device has no size."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError("too large")
    return content
