"""Seal a bundle: its secrets in one archive that is encrypted for one host (`build --seal`).

    secrets.sealed    the archive, as `openssl enc -aes-256-ctr -md sha256` writes it
    unseal.cms        `--seal-to`: the unseal code, encrypted to the host's certificate

The archive is a tar of the secret files (0600), of the MANIFEST that the bundle has without a seal,
and of that manifest's signature, padded so that its size tells nothing. The tag of the archive is a
digest keyed by the unseal code. It checks the code and the content, and the encryption key depends
on it, so that two archives never share a key and the same content gives the same bytes (the idea
of SIV, RFC 5297). Every digest in the clear manifest that depends on a secret is keyed by the code:
a plain digest of a short password can be guessed.

Every openssl from 1.0.2 on can decrypt this with a key from a file: `openssl enc` has neither
AEAD nor, before 1.1.1, PBKDF2. The unseal code is random and has 140 bits, so that SHA-256 is
enough to derive keys. templates/common/lib/transaction/seal.sh is the other side.
"""

import hashlib
import tarfile
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from bundler.bundle.signing import SIGNATURE
from bundler.cache.segments import padding
from bundler.files import SECRET_MODE
from bundler.render.bundle_manifest import Seal
from bundler.render.tree import MANIFEST, File, Tree, make_manifest

SEALED = "secrets.sealed"
ENVELOPE = "unseal.cms"
CONTAINERS = frozenset({SEALED, ENVELOPE})
"""The files of a sealed bundle that the same bundle without a seal does not have."""

PADDED_TO = 1 << 16  # bytes
MAGIC = b"Salted__"
END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealKey:
    """What one host's bundle is sealed with."""

    code: str = field(repr=False)  # without dashes
    envelope: bytes = b""  # the code in CMS, for the certificate of `recipient`
    recipient: str = ""  # SHA-256 of the certificate; empty: a person has the code

    @property
    def identifier(self) -> str:
        """Name the code without telling it."""
        return _hash("key", self.code)[:16]


def seal_tree(tree: Tree, key: SealKey, mtime: int, signature: bytes) -> tuple[Tree, Seal | None]:
    """Seal the secret files of a complete tree; return it unchanged if it has none.

    `signature` is that of the tree's MANIFEST, or empty. The MANIFEST of the result has the same
    lines for the files that are not secret.
    """
    secrets = [file for file in tree if file.mode == SECRET_MODE]
    if not secrets:
        return tree, None
    signed = [File(path=SIGNATURE, mode=SECRET_MODE, content=signature, origin="signature")]
    archive = _make_archive([tree[MANIFEST], *(signed if signature else []), *secrets], mtime)
    tag = _hash("archive", key.code, hashlib.sha256(archive).hexdigest())
    containers = {SEALED: _encrypt(archive, key.code, tag), ENVELOPE: key.envelope}
    sealed = Tree(file for file in tree if file.mode != SECRET_MODE and file.path != MANIFEST)
    for path, content in containers.items():
        if content:
            sealed.add(File(path=path, mode=SECRET_MODE, content=content, origin="seal"))
    sealed.add(make_manifest(sealed))
    return sealed, Seal(
        tag=tag,
        key_id=key.identifier,
        recipient=key.recipient,
        tags={file.path: _hash("file", key.code, file.path, file.sha256) for file in secrets},
    )


def _hash(purpose: str, code: str, *parts: str) -> str:
    """Return a digest keyed by the code. Each purpose has parts of its own number and form."""
    text = "".join(f"{line}\n" for line in (f"bundler seal 1 {purpose}", code, *parts))
    return hashlib.sha256(text.encode()).hexdigest()


def _make_archive(files: list[File], mtime: int) -> bytes:
    pieces = []
    for file in files:
        if not isinstance(file.content, bytes):
            raise TypeError(f"{file.path} is a payload, and cannot be sealed")
        info = tarfile.TarInfo(file.path)
        info.size, info.mode, info.mtime = file.size, SECRET_MODE, mtime
        pieces += [info.tobuf(tarfile.GNU_FORMAT), file.content, padding(file.size)]
    archive = b"".join([*pieces, END])
    return archive + bytes(-len(archive) % PADDED_TO)


def _encrypt(archive: bytes, code: str, tag: str) -> bytes:
    """Encrypt as `openssl enc -aes-256-ctr -md sha256 -pass file:` does, with a derived password.

    openssl derives key and counter from password and salt (EVP_BytesToKey, one iteration).
    """
    password, salt = _hash("encryption", code, tag).encode(), bytes.fromhex(tag)[: len(MAGIC)]
    key = hashlib.sha256(password + salt).digest()
    counter = hashlib.sha256(key + password + salt).digest()[:16]
    encryptor = Cipher(AES256(key), CTR(counter)).encryptor()
    return MAGIC + salt + encryptor.update(archive) + encryptor.finalize()
