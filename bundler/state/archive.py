"""Export and import the state directory as one encrypted file, for backups and other builders.

    bundler-state 1                          the file type
    {"kdf": "scrypt", "n": …, …}             how to derive the key from the passphrase, in JSON
    …                                        AES-256-GCM of a gzipped tar; both lines are its
                                             associated data, so that a change to them is detected

Sources: RFC 7914 (scrypt), NIST SP 800-38D (GCM).
"""

import base64
import io
import json
import secrets
import shutil
import tarfile
import zlib
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bundler.errors import ConfigError, OutputError, PkiError
from bundler.files import (
    TEMPORARY,
    explain_disk_faults,
    sync_directory,
    write_atomically,
)
from bundler.formats.tar_safety import BadMemberError, iter_members, open_tar
from bundler.private_files import ensure_private_directory, make_private_directory
from bundler.state.directory import open_state

MAGIC = b"bundler-state 1"
MIN_PASSPHRASE = 12  # characters
COST = {"n": 1 << 17, "r": 8, "p": 1}
MAX_COST = {"n": 1 << 18, "r": 16, "p": 4}
"""A file may ask for more than COST, so that a later version can raise it."""
MAX_MEMORY = 256 << 20  # bytes that scrypt may use: 128 * n * r
MAX_HEADER = 1 << 10  # bytes of the second line
NONCE_SIZE = 12  # bytes
MAX_SIZE = 64 << 20  # bytes of an exported state directory
MAX_UNPACKED = 256 << 20  # bytes of the tar in it


def export_state(directory: Path, output: Path, passphrase: str) -> int:
    """Write the complete state directory, encrypted; returns the number of files.

    Raises ConfigError for a short passphrase, OutputError if the output exists already, PkiError if
    the directory is not a state directory.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigError(f"the passphrase is shorter than {MIN_PASSPHRASE} characters")
    if output.exists():
        raise OutputError(f"{output}: already exists", hint="choose another file with -o")
    if not output.parent.is_dir():
        raise OutputError(
            f"{output}: the directory {output.parent} does not exist", hint="create it first"
        )
    with open_state(directory):
        paths = [path for path in sorted(directory.rglob("*")) if _is_exported(path)]
        files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    salt = base64.b64encode(secrets.token_bytes(16)).decode()
    header = MAGIC + b"\n" + json.dumps({"kdf": "scrypt", **COST, "salt": salt}).encode() + b"\n"
    nonce = secrets.token_bytes(NONCE_SIZE)
    content = (
        header + nonce + AESGCM(_derive(passphrase, header)).encrypt(nonce, _pack(files), header)
    )
    unpacked = sum(len(data) + 2 * tarfile.BLOCKSIZE for data in files.values())
    if len(content) > MAX_SIZE or unpacked > MAX_UNPACKED:
        raise OutputError(
            f"{directory}: larger than {MAX_SIZE >> 20} MiB, the limit of an exported state",
            hint="remove files that do not belong to it, or old entries of archive/ (certificates"
            " that renewals replaced)",
        )
    write_atomically(output, content)
    return len(files)


def import_state(file: Path, directory: Path, passphrase: str) -> int:
    """Create the state directory from an exported file; returns the number of files.

    The directory appears completely or not at all; keys of a killed import are removed first.
    Raises OutputError if the directory exists already or the file is not an exported state,
    PkiError if the passphrase is wrong or the file was changed (it is impossible to tell which).
    """
    temporary = directory.parent / f"{TEMPORARY}import-{directory.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    with explain_disk_faults(directory):
        is_taken = directory.exists() and any(directory.iterdir())
    if is_taken:
        raise OutputError(
            f"{directory}: already exists, and a state directory is never overwritten",
            hint="move it away first, or choose another directory with --state",
        )
    header, content = _read(file)
    key = _derive(passphrase, header)
    try:
        packed = AESGCM(key).decrypt(content[:NONCE_SIZE], content[NONCE_SIZE:], header)
    except (InvalidTag, ValueError) as error:
        raise PkiError(f"{file}: the passphrase is wrong, or the file is damaged") from error
    files = _unpack(packed)
    with explain_disk_faults(directory):
        ensure_private_directory(directory.parent, option="--state")
        temporary.mkdir(mode=0o700)
        temporary.chmod(0o700)
        try:
            for name, data in files.items():
                target = temporary / name
                for parent in reversed(target.relative_to(temporary).parents[:-1]):
                    make_private_directory(temporary / parent)
                write_atomically(target, data)
            if directory.exists():
                directory.rmdir()
            temporary.rename(directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(directory.parent)
    return len(files)


def _is_exported(path: Path) -> bool:
    return path.is_file() and path.name != ".lock" and not path.name.startswith(TEMPORARY)


def _read(file: Path) -> tuple[bytes, bytes]:
    """The two header lines, and the encrypted content."""
    try:
        if file.stat().st_size > MAX_SIZE:
            raise OutputError(f"{file}: larger than {MAX_SIZE >> 20} MiB: not an exported state")
        content = file.read_bytes()
    except OSError as error:
        raise OutputError(f"{file}: {error.strerror or error}") from error
    parts = content.split(b"\n", 2)
    if len(parts) != 3 or parts[0] != MAGIC:
        raise OutputError(f"{file}: not a file of bundler state export")
    return parts[0] + b"\n" + parts[1] + b"\n", parts[2]


def _derive(passphrase: str, header: bytes) -> bytes:
    """The key; OutputError if the file asks for more memory or time than is reasonable."""
    line = header.split(b"\n")[1]
    try:
        facts = json.loads(line) if len(line) <= MAX_HEADER else {}
        salt, cost = base64.b64decode(facts["salt"]), {name: int(facts[name]) for name in COST}
        _check_cost(cost)
        kdf = Scrypt(salt=salt, length=32, **cost)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise OutputError("the second line of the file is damaged") from error
    return kdf.derive(passphrase.encode())


def _check_cost(cost: dict[str, int]) -> None:
    """OutputError if scrypt would take too much memory or time: anybody can write these numbers."""
    over = [f"{name} {cost[name]} (at most {most})" for name, most in MAX_COST.items()
            if cost[name] > most]  # fmt: skip
    if not over and (memory := 128 * cost["n"] * cost["r"]) > MAX_MEMORY:
        over = [f"{memory >> 20} MiB of memory (at most {MAX_MEMORY >> 20})"]
    if over:
        raise OutputError(
            f"the file asks for scrypt with {', '.join(over)}: bundler did not write it",
            hint="find out who changed it; import another copy",
        )


def _pack(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with open_tar(mode="w:gz", fileobj=packed) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _unpack(packed: bytes) -> dict[str, bytes]:
    """The files of the tar; checked although whoever made it has the passphrase."""
    files = {}
    try:
        with open_tar(mode="r:gz", fileobj=io.BytesIO(packed)) as archive:
            for member in iter_members(archive, MAX_UNPACKED):
                content = archive.extractfile(member) if member.isreg() else None
                if not content:
                    raise OutputError(f"the exported state holds {member.name!r}, not a file")
                files[member.name] = content.read()
    except BadMemberError as error:
        raise OutputError(f"the exported state is not from bundler: {error}") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise OutputError(f"the exported state cannot be unpacked: {error}") from error
    return files
