"""The keys in `upstream_keys`: how upstream signs a version, and which key must sign it."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bundler.catalog.kubernetes import archive_of
from bundler.catalog.signatures import Scheme, Signed, find_signed
from bundler.cluster.inputs import UpstreamKey
from bundler.errors import ConfigError


def find_key(keys: Mapping[str, UpstreamKey], component: str) -> UpstreamKey | None:
    """The key that must have signed a component's files; None if no signature is required.

    The key of Kubernetes' archive is also required for programs that upstream publishes alone.
    """
    return keys.get(component) or keys.get(archive_of(component))


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
            f"upstream_keys: upstream does not sign {component} {version} with {scheme}",
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
