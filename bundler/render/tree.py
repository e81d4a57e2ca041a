"""A node's bundle as a tree of files, its manifest, and the tree written out for review."""

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
    """One file of a bundle: small ones hold their bytes, large ones a payload."""

    path: str  # relative to the bundle's directory
    mode: int
    content: bytes | Payload
    origin: str  # the template, artifact member or image archive that it comes from

    @property
    def size(self) -> int:
        """Bytes."""
        return self.content.size if isinstance(self.content, Payload) else len(self.content)

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        if isinstance(self.content, Payload):
            return self.content.sha256
        return hashlib.sha256(self.content).hexdigest()


class Tree:
    """Files by path; a path belongs to one origin only."""

    def __init__(self, files: Iterable[File] = ()) -> None:
        self._files: dict[str, File] = {}
        for file in files:
            self.add(file)

    def add(self, file: File) -> None:
        """Add a file; TemplateError where another has its path."""
        other = self._files.get(file.path)
        if other is not None:
            raise TemplateError(f"{file.path} is made by {other.origin} and by {file.origin}")
        self._files[file.path] = file

    def __iter__(self) -> Iterator[File]:
        """Files sorted by path."""
        return iter(sorted(self._files.values(), key=lambda file: file.path))

    def __getitem__(self, path: str) -> File:
        """The file of that path; KeyError where there is none."""
        return self._files[path]

    def __contains__(self, path: str) -> bool:
        """Whether the path is taken."""
        return path in self._files


def make_manifest(tree: Tree) -> File:
    """One line a file: sha256, mode, size, path."""
    lines = [f"{file.sha256} {file.mode:04o} {file.size} {file.path}\n" for file in tree]
    return File(path=MANIFEST, mode=0o644, content="".join(lines).encode(), origin="manifest")


def write_tree(tree: Tree, directory: Path) -> None:
    """Write a tree out as plain files, for review and diff."""
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
