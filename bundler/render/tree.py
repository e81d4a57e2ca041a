"""The tree of files of a bundle: its manifest, and writing it to disk for review."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.cache.payload import Payload, read_payload
from bundler.errors import TemplateError
from bundler.files import explain_disk_faults

MANIFEST = "MANIFEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a bundle: a small one has its bytes, a large one a payload."""

    path: str  # relative to the bundle's directory
    mode: int
    content: bytes | Payload
    origin: str  # its template, archive member or image

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.content.size if isinstance(self.content, Payload) else len(self.content)

    @property
    def sha256(self) -> str:
        """The digest in hexadecimal."""
        if isinstance(self.content, Payload):
            return self.content.sha256
        return hashlib.sha256(self.content).hexdigest()


class Tree:
    """Files by path; two files cannot have the same path."""

    def __init__(self, files: Iterable[File] = ()) -> None:
        self._files: dict[str, File] = {}
        for file in files:
            self.add(file)

    def add(self, file: File) -> None:
        """Add a file; raises TemplateError if another has its path."""
        other = self._files.get(file.path)
        if other is not None:
            raise TemplateError(f"{file.path}: two sources, {other.origin} and {file.origin}")
        self._files[file.path] = file

    def __iter__(self) -> Iterator[File]:
        """Iterate over the files, sorted by path."""
        return iter(sorted(self._files.values(), key=lambda file: file.path))

    def __getitem__(self, path: str) -> File:
        """Return the file with that path; raises KeyError."""
        return self._files[path]

    def __contains__(self, path: str) -> bool:
        """Whether a file has the path."""
        return path in self._files


def make_manifest(tree: Tree) -> File:
    """Make MANIFEST: one line per file with SHA-256, mode, size and path."""
    lines = [f"{file.sha256} {file.mode:04o} {file.size} {file.path}\n" for file in tree]
    return File(path=MANIFEST, mode=0o644, content="".join(lines).encode(), origin="manifest")


def write_tree(tree: Tree, directory: Path) -> None:
    """Write a tree as plain files, for review and diff."""
    for file in tree:
        target = directory / file.path
        with explain_disk_faults(target):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            target.unlink(missing_ok=True)
            target.touch(mode=0o600)
            with target.open("wb") as out:
                if isinstance(file.content, bytes):
                    out.write(file.content)
                else:
                    out.writelines(read_payload(file.content))
            target.chmod(file.mode)
