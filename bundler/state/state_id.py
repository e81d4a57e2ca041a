"""The id of a state directory: what builds, bundles and hosts record, to tell two states apart.

    state-id                    64 hexadecimal digits

It is the SHA-256 of the first public key for service accounts, as control planes have it in sa.pub.
bundler makes that key in every state, before any certificate and with external CAs too. The file
keeps the id when that key or the CAs are rotated.
"""

import hashlib
import re
from pathlib import Path

from bundler.errors import PkiError
from bundler.files import write_atomically

FILE = "state-id"
SHOWN = 16  # digits in messages
PUBLIC_KEY = Path("pki", "service-account", "pub.pem")
STATE_ID = re.compile(r"[0-9a-f]{64}")


def read_state_id(directory: Path) -> str | None:
    """Read the id of a state directory; None if there is no state, or one without any key yet."""
    recorded = _read(directory / FILE)
    if recorded is None:
        first_key = _read(directory / PUBLIC_KEY)
        return make_state_id(first_key) if first_key is not None else None
    state_id = recorded.decode(errors="replace").strip()
    if not STATE_ID.fullmatch(state_id):
        raise PkiError(
            f"{directory / FILE}: expected 64 hexadecimal digits",
            hint="restore the file from your backup of the state directory",
        )
    return state_id


def ensure_state_id(directory: Path) -> None:
    """Record the id of a state that has its first key, if no earlier run did."""
    state_id = read_state_id(directory)
    if state_id and not (directory / FILE).exists():
        write_atomically(directory / FILE, f"{state_id}\n".encode())


def make_state_id(first_key: bytes) -> str:
    """Make the id from the first public key for service accounts, in PEM."""
    return hashlib.sha256(first_key.strip() + b"\n").hexdigest()


def _read(path: Path) -> bytes | None:
    """Read a file; None if it does not exist. A file that cannot be read is an error."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PkiError(
            f"{path}: cannot read: {error.strerror}", hint="run as the owner of the state directory"
        ) from error
