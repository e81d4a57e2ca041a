"""Check sigstore bundles with sigstore's own library, without a network.

Source: https://github.com/sigstore/protobuf-specs: sigstore_bundle.proto, sigstore_trustroot.proto
"""

from pathlib import Path

from sigstore.errors import Error
from sigstore.hashes import Hashed
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy
from sigstore_models.common.v1 import HashAlgorithm
from sigstore_models.trustroot.v1 import TrustedRoot as TrustedRootDocument

from bundler.formats.digests import hash_file


class BadBundleError(Exception):
    """Why a bundle does not prove the signature."""


def check_bundle(content: bytes, path: Path, root: bytes, identity: str, issuer: str) -> None:
    """Check that the bundle proves that `identity` signed the file and that the log has an entry.

    `root` is a trusted_root.json. Raises BadBundleError, or ValueError if `root` is invalid.
    """
    try:
        verifier = Verifier(trusted_root=TrustedRoot(TrustedRootDocument.from_json(root)))
    except (ValueError, Error, RecursionError) as error:
        raise ValueError(_first_line(error)) from error
    digest = bytes.fromhex(hash_file(path, "sha256"))
    try:
        verifier.verify_artifact(
            Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest),
            Bundle.from_json(content),
            policy.Identity(identity=identity, issuer=issuer),
        )
    except (ValueError, Error, RecursionError) as error:
        raise BadBundleError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
