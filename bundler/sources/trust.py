"""The keys in `upstream_keys`: how upstream signs a version, and which key must sign it."""

import hashlib
from dataclasses import replace
from pathlib import Path

from bundler.catalog.signatures import Scheme, Signed, find_signed
from bundler.cluster.inputs import UpstreamKey
from bundler.errors import ConfigError


def describe_trust(component: str, version: str, key: UpstreamKey) -> str:
    """A text that identifies the trusted key, for the lock; it differs for every other key.

    `openpgp sha256:…` has the digest of the key file. With certificates, the text also has the
    identity and the issuer. Raises ConfigError as `check_signature` does.
    """
    signed = choose_signed(component, version, key)
    digest = hashlib.sha256(read_key(getattr(key, signed.scheme))).hexdigest()
    named = f" {signed.identity} by {signed.issuer}" if signed.scheme is not Scheme.OPENPGP else ""
    return f"{signed.scheme} sha256:{digest}{named}"


def choose_signed(component: str, version: str, key: UpstreamKey) -> Signed:
    """How upstream signs that version; the user's settings take precedence."""
    scheme = next(scheme for scheme in Scheme if getattr(key, scheme))
    signed = find_signed(component, version, scheme)
    if not signed:
        raise ConfigError(
            f"upstream_keys.{component}: upstream does not sign {version} with {scheme}",
            hint="remove the key; the digest then has another trust source",
        )
    return replace(
        signed,
        signature=key.signature or signed.signature,
        certificate=key.certificate or signed.certificate,
        identity=key.identity or signed.identity,
        issuer=key.issuer or signed.issuer,
    )


def read_key(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path else b""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
