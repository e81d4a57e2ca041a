"""The state directory as one encrypted file: a backup, or the way to another builder.

    bundler-state 1                          a line that says what this is
    {"kdf": "scrypt", "n": …, …}             a line of JSON: how the key follows from the passphrase
    …                                        AES-256-GCM of a gzipped tar; both lines are its
                                             associated data, so that none of them can be changed

Sources: RFC 7914 (scrypt), NIST SP 800-38D (GCM).
"""

import base64
import io
import json
import secrets
import shutil
import tarfile
from collections.abc import Mapping
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
from bundler.state.directory import open_state

MAGIC = b"bundler-state 1"
SHORTEST_PASSPHRASE = 12  # characters
COST = {"n": 1 << 17, "r": 8, "p": 1}
MOST_COST = 1 << 20
"""Of n: what a file asks for beyond this is no file of ours, and would take all memory."""
NONCE = 12  # bytes
LARGEST = 64 << 20  # bytes of a state directory


def export_state(directory: Path, output: Path, passphrase: str) -> int:
    """Write the whole state directory, encrypted; how many files it has.

    ConfigError for a short passphrase, OutputError where the output exists already, PkiError where
    the directory is no state.
    """
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigError(f"the passphrase is shorter than {SHORTEST_PASSPHRASE} characters")
    if output.exists():
        raise OutputError(f"{output}: exists already", hint="name another file with -o")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: there is no directory {output.parent}", hint="make it first")
    if not (directory / "pki").is_dir():
        raise PkiError(f"{directory}: no state directory: it holds no pki", hint="see --state")
    with open_state(directory):
        paths = [path for path in sorted(directory.rglob("*")) if _is_kept(path)]
        files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    salt = base64.b64encode(secrets.token_bytes(16)).decode()
    header = MAGIC + b"\n" + json.dumps({"kdf": "scrypt", **COST, "salt": salt}).encode() + b"\n"
    nonce = secrets.token_bytes(NONCE)
    content = (
        header + nonce + AESGCM(_derive(passphrase, header)).encrypt(nonce, _pack(files), header)
    )
    if len(content) > LARGEST:
        raise OutputError(
            f"{directory}: larger than the {LARGEST >> 20} MiB that an exported state may be",
            hint="take away what is no part of it; archive/ holds what renewals replaced",
        )
    write_atomically(output, content)
    return len(files)


def import_state(file: Path, directory: Path, passphrase: str) -> int:
    """Make the state directory out of such a file; how many files it has.

    It appears whole or not at all; keys that a killed import left beside it go first. OutputError
    where one is there already, or the file is none of ours; PkiError where the passphrase is wrong
    or the file was altered: nobody can tell which.
    """
    temporary = directory.parent / f"{TEMPORARY}import-{directory.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    with explain_disk_faults(directory):
        is_taken = directory.exists() and any(directory.iterdir())
    if is_taken:
        raise OutputError(
            f"{directory}: exists already, and a state is never overwritten",
            hint="move it away first, or name another with --state",
        )
    header, content = _read(file)
    key = _derive(passphrase, header)
    try:
        packed = AESGCM(key).decrypt(content[:NONCE], content[NONCE:], header)
    except (InvalidTag, ValueError) as error:
        raise PkiError(f"{file}: the passphrase is wrong, or the file is damaged") from error
    files = _unpack(packed)
    with explain_disk_faults(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        try:
            for name, data in files.items():
                target = temporary / name
                for parent in reversed(target.relative_to(temporary).parents[:-1]):
                    (temporary / parent).mkdir(mode=0o700, exist_ok=True)
                write_atomically(target, data)
            if directory.exists():
                directory.rmdir()
            temporary.rename(directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(directory.parent)
    return len(files)


def _is_kept(path: Path) -> bool:
    return path.is_file() and path.name != ".lock" and not path.name.startswith(TEMPORARY)


def _read(file: Path) -> tuple[bytes, bytes]:
    """The two lines at the beginning, and what is encrypted."""
    try:
        if file.stat().st_size > LARGEST:
            raise OutputError(f"{file}: too large for an exported state")
        content = file.read_bytes()
    except OSError as error:
        raise OutputError(f"{file}: {error.strerror or error}") from error
    parts = content.split(b"\n", 2)
    if len(parts) != 3 or parts[0] != MAGIC:
        raise OutputError(f"{file}: no state that bundler exported")
    return parts[0] + b"\n" + parts[1] + b"\n", parts[2]


def _derive(passphrase: str, header: bytes) -> bytes:
    try:
        facts = json.loads(header.split(b"\n")[1])
        salt, cost = base64.b64decode(facts["salt"]), {name: int(facts[name]) for name in COST}
        kdf = Scrypt(salt=salt, length=32, **cost) if _is_payable(cost) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        kdf = None
    if kdf is None:
        raise OutputError("the file's second line is not bundler's: it is damaged")
    return kdf.derive(passphrase.encode())


def _is_payable(cost: Mapping[str, int]) -> bool:
    return 1 < cost["n"] <= MOST_COST and 0 < cost["r"] <= 32 and 0 < cost["p"] <= 16


def _pack(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with open_tar(mode="w:gz", fileobj=packed) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _unpack(packed: bytes) -> dict[str, bytes]:
    """It was authenticated, so whoever wrote it knew the passphrase; still no path leads out."""
    files = {}
    try:
        with open_tar(mode="r:gz", fileobj=io.BytesIO(packed)) as archive:
            for member in iter_members(archive):
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise OutputError(f"the exported state holds {member.name!r}, not a file")
                files[member.name] = content.read()
    except BadMemberError as error:
        raise OutputError(f"the exported state is not from bundler: {error}") from error
    return files
