"""Sealed bundles on disk, and a search for secrets in every form and at every depth of a file."""

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bundler.bundle.layout import arrange
from bundler.bundle.seal import SealKey, seal_tree
from bundler.render.tree import MANIFEST, File, Tree, make_manifest, write_tree

PUBLIC = re.compile(r"(^|/)(cert|pub)\.pem$|^allocations\.yaml$|^etcd-founders$|^state-id$|^sealed-to/[^/]+/(certificate|envelope)$|^\.lock$")  # fmt: skip
"""Files of a state directory that hold no secret. Every other one does, also one that is new."""
ENCODED = re.compile(rb"[A-Za-z0-9+/]{64,}")
DEPTH = 6  # archives in archives
LARGE = 64 << 20  # bytes of an archive that is searched by its files only


def seal_directory(bundle: Path, target: Path, key: SealKey, signature: bytes = b"") -> Path:
    """Write an unpacked bundle once more, sealed."""
    tree = Tree(
        File(
            path=path.relative_to(bundle).as_posix(), mode=path.stat().st_mode & 0o777,
            content=path.read_bytes(), origin="a test",
        )
        for path in bundle.rglob("*") if path.is_file() and path.name != MANIFEST
    )  # fmt: skip
    tree.add(make_manifest(tree))
    sealed, seal = seal_tree(tree, key, 0, signature)
    write_tree(arrange(sealed, seal=seal), target)
    return target


def list_needles(state: Path) -> dict[str, set[bytes]]:
    """Map each secret file of a state directory to its secret in every form that is searched for."""
    files = {
        path.relative_to(state).as_posix(): path for path in state.rglob("*") if path.is_file()
    }
    needles = {}
    for name, path in files.items():
        if not PUBLIC.search(name):
            needles[name] = {form for value in _list_values(path) for form in _list_forms(value)}
            assert needles[name], f"no secret is found in {name}"
    return needles


def list_members(bundle: Path) -> set[str]:
    """The digest of each file in a tarball."""
    with tarfile.open(bundle) as tar:
        files = filter(None, map(tar.extractfile, tar))
        return {hashlib.sha256(file.read()).hexdigest() for file in files}


def search(content: bytes, needles: dict[str, set[bytes]], known: Collection[str] = ()) -> set[str]:
    """Names of the secrets in a file, or in what is packed or compressed in it.

    Packed files with a digest in `known` are left out: those that a bundle of another state has too.
    """
    found = set()
    for layer in _unpack(content, DEPTH, known):
        texts = (layer, layer.replace(b"\n", b""), layer.replace(b"\\n", b""))
        for name, forms in needles.items():
            if any(form in text for text in texts for form in forms):
                found.add(name)
    return found


def _list_values(path: Path) -> Iterator[bytes]:
    """The bytes that must not be anywhere: numbers of a key, halves of a token, a code."""
    content = path.read_bytes().strip()
    if b"PRIVATE KEY-----" in content:
        pair = load_pem_private_key(content, password=None)
        assert isinstance(pair, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        yield pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        yield pair.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        numbers = pair.private_numbers()
        secret = (
            (numbers.private_value,) if isinstance(numbers, ec.EllipticCurvePrivateNumbers)
            else (numbers.d, numbers.p, numbers.q)
        )  # fmt: skip
        yield from (number.to_bytes((number.bit_length() + 7) // 8, "big") for number in secret)
    elif token := re.search(rb'"[a-z0-9]{6}\.([a-z0-9]{16})"', content):
        yield token[1]
    elif key := re.fullmatch(
        rb"(?:\S+ )?([A-Za-z0-9+/]{43}=)", content
    ):  # with its name or without
        yield from {key[1], base64.b64decode(key[1])}
    else:
        yield from {content, content.replace(b"-", b"")}


def _list_forms(value: bytes) -> Iterator[bytes]:
    """The value as it is, in hexadecimal, and in base64 wherever it begins in what is encoded."""
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for offset in range(3):
        end = (offset + len(value)) % 3
        text = base64.b64encode(bytes(offset) + value + bytes(-end % 3))
        inner = text[4 if offset else 0 : -4 if end else None]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


def _unpack(content: bytes, depth: int, known: Collection[str]) -> Iterator[bytes]:
    is_archive = content[:2] == b"\x1f\x8b" or content[257:262] == b"ustar"
    if not is_archive or len(content) < LARGE:
        yield content
    if not depth:
        return
    for encoded in (
        ENCODED.findall(content) if len(content) < LARGE else ()
    ):  # as a key in a kubeconfig, which is base64 twice
        yield from _unpack(base64.b64decode(encoded[: len(encoded) // 4 * 4]), depth - 1, known)
    if content[:2] == b"\x1f\x8b":
        try:
            unzipped = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            # below the file itself, two bytes of base64 may be these by chance
            if depth == DEPTH:
                raise
            return
        yield from _unpack(unzipped, depth - 1, known)
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                if file := tar.extractfile(member):
                    packed = file.read()
                    if hashlib.sha256(packed).hexdigest() not in known:
                        yield from _unpack(packed, depth - 1, known)
