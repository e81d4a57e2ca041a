"""The key that signs service account tokens, and the secrets that exist before any certificate.

encryption-key                                  made first (state/encryption.py)
pki/service-account/{key.pem,pub.pem}           signs tokens
pki/next/service-account/{key.pem,pub.pem}      stage `trust` of a rotation
pki/previous/service-account/pub.pem            stage `issue` of a rotation
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import issuing
from bundler.pki.ca_certificates import check_not_lost
from bundler.pki.key_pairs import load_key
from bundler.pki.rotation_stages import NEXT, PREVIOUS, SERVICE_ACCOUNT
from bundler.state.directory import RESTORE, State
from bundler.state.encryption import ensure_encryption_keys
from bundler.state.state_id import ensure_state_id, read_state_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountKeys:
    """The key that signs tokens, and the public keys that API servers accept."""

    key_pem: bytes = field(repr=False)
    public_pem: Mapping[str, bytes]  # by id, the one that signs first

    @property
    def signs(self) -> str:
        """The id of the key that signs."""
        return next(iter(self.public_pem))


def ensure_first_secrets(state: State, plan: ClusterPlan, notes: list[str]) -> ServiceAccountKeys:
    """Create the encryption key and the service account key; return the latter.

    The encryption key comes before everything else, so that its loss is always noticed.
    """
    ensure_encryption_keys(state, plan.cluster.encryption)
    state.make_directory(state.directory / "pki")
    return _ensure_service_account(state, plan, notes)


def make_key_files(plan: ClusterPlan) -> dict[str, bytes]:
    """Make a new key pair: the files of its directory."""
    key = issuing.make_key(plan.cluster.pki.key)
    return {
        "key.pem": issuing.encode_private_key(key),
        "pub.pem": issuing.encode_public_key(key.public_key()),
    }


def make_key_id(public_pem: bytes) -> str:
    """The id of a key, as Kubernetes writes it into the header of a token (kid)."""
    key = load_pem_public_key(public_pem)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return base64.urlsafe_b64encode(digest.finalize()).decode().rstrip("=")


def _ensure_service_account(
    state: State, plan: ClusterPlan, notes: list[str]
) -> ServiceAccountKeys:
    root = state.directory / "pki"
    directory = root / SERVICE_ACCOUNT
    if not directory.is_dir():
        if read_state_id(state.directory):
            raise PkiError(
                f"{directory}: missing, but state-id, which is made later, exists", hint=RESTORE
            )
        check_not_lost(directory, after=())
        state.write_directory(directory, make_key_files(plan))
        ensure_state_id(state.directory)
        notes.append("service-account key pair: created")
    key, key_pem = load_key(directory, state)
    public_pem = state.read_file(directory / "pub.pem")
    if issuing.encode_public_key(key.public_key()).split() != public_pem.split():
        raise PkiError(
            f"{directory}: key.pem and pub.pem do not belong together",
            hint=f"restore both from the same backup; {RESTORE}",
        )
    others = (root / stage / SERVICE_ACCOUNT / "pub.pem" for stage in (NEXT, PREVIOUS))
    trusted = (public_pem, *(_load_public_key(path, state) for path in others if path.exists()))
    return ServiceAccountKeys(
        key_pem=key_pem, public_pem={make_key_id(pem): pem for pem in trusted}
    )


def _load_public_key(path: Path, state: State) -> bytes:
    pem = state.read_file(path)
    try:
        load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a public key in PEM", hint=RESTORE) from error
    return pem
