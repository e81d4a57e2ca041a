"""The Go files of a Kubernetes source tree: a directory, a tar archive or a git directory.

A tree is Kubernetes' own, or of a project that has Kubernetes in a folder or in its vendor
directory. Nothing of it runs.
"""

import bz2
import gzip
import lzma
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from bundler.errors import BundlerError
from bundler.formats.tar_safety import BadMemberError, read_files

KUBERNETES = "k8s.io/kubernetes"
VENDORED = f"vendor/{KUBERNETES}"
MARK = re.compile(r"(.*/)?cmd/kube-apiserver/app/server\.go")
"""The file that tells where Kubernetes is in a tree."""
MAIN = "cmd/kube-proxy/proxy.go"
"""A file that incomplete copies of Kubernetes in vendor directories do not have."""
GENERATED = re.compile(
    r"(generated\.pb|types_swagger_doc_generated|zz_generated\.(conversion|deepcopy|defaults|openapi))\.go$"
    r"|_test\.go$|/testdata/"
)
"""Files without a declaration that the catalog needs; they are most of a tree."""
COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""First bytes of an archive → how to read it."""
BIGGEST_TREE = 4 << 30
"""Bytes that an archive may unpack to."""


class Source:
    """The Go files of a tree by folder, and where Kubernetes' own packages and modules are."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Take the files by path; only those that are needed are read."""
        self._files = files
        self._folders: dict[str, list[str]] = {}
        names = sorted(files)
        for name in names:
            self._folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
        marks = [match[1] or "" for name in names if (match := MARK.fullmatch(name))]
        if not marks:
            raise BundlerError(
                "the source has no cmd/kube-apiserver/app/server.go",
                hint="give Kubernetes' source tree: a directory, a tar archive or a git directory",
            )
        kubernetes = min(marks, key=lambda above: (f"{above}{MAIN}" not in names, len(above)))
        above = kubernetes.removesuffix(f"{VENDORED}/")
        self._kubernetes = kubernetes
        self._modules = (f"{above}staging/src/", f"{above}vendor/", "vendor/")

    def folder_of(self, package: str) -> str | None:
        """Return the folder of a package's import path; None if the tree does not have it."""
        if package == KUBERNETES or package.startswith(f"{KUBERNETES}/"):
            folders = [f"{self._kubernetes}{package[len(KUBERNETES) + 1 :]}"]
        else:
            folders = [f"{above}{package}" for above in self._modules]
        return next((folder for folder in folders if folder in self._folders), None)

    def list_files(self, folder: str) -> tuple[str, ...]:
        """Return the paths of the Go files right in a folder, sorted."""
        return tuple(self._folders.get(folder, ()))

    def list_packages(self) -> tuple[str, ...]:
        """Return the import path of every package of Kubernetes' modules (k8s.io/api …), sorted."""
        found = {
            folder.removeprefix(above)
            for folder in self._folders
            for above in self._modules
            if folder.startswith(f"{above}k8s.io/")
            and not folder.startswith(f"{above}{KUBERNETES}/")
        }
        return tuple(sorted(found))

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return self._files[path]


def open_source(path: Path, revision: str, minor: str) -> Source:
    """Open a source tree; `revision` is a commit, branch or tag of a git directory.

    Without a revision the newest tag of the minor is taken. Raises BundlerError.
    """
    if path.is_file():
        return Source(_read_archive(path))
    if not path.is_dir():
        raise BundlerError(f"{path}: there is no such file or directory", hint="give SOURCE=PATH")
    if (path / "HEAD").is_file() and (path / "objects").is_dir():
        return Source(_GitFiles(path, revision or _newest_tag(path, minor)))
    if revision:
        raise BundlerError(
            f"{path} is no git directory, so it has no revision {revision!r}",
            hint="give a git directory (of a clone: SOURCE=DIR/.git), or no REVISION",
        )
    return Source(_DirectoryFiles(path))


def is_wanted(name: str) -> bool:
    """Whether a file is one of Go's that the catalog may need."""
    return name.endswith(".go") and not GENERATED.search(name)


def _read_archive(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((o for magic, o in COMPRESSIONS.items() if head.startswith(magic)), open)
    try:
        with opener(path, "rb") as stream:
            return read_files(stream, is_wanted, BIGGEST_TREE)
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError, BadMemberError) as error:
        raise BundlerError(f"{path}: not a readable tar archive: {error}") from error


class _DirectoryFiles(Mapping[str, bytes]):
    """Files of a directory, read when they are needed; links are not followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = [
            str(Path(above, name).relative_to(path))
            for above, _, names in os.walk(path)
            for name in names
            if is_wanted(name) and not Path(above, name).is_symlink()
        ]

    def __getitem__(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _GitFiles(Mapping[str, bytes]):
    """Files of a commit, read when they are needed: large ones may be missing in a snapshot."""

    def __init__(self, path: Path, revision: str) -> None:
        self._path = path
        listed = _git(path, "ls-tree", "-r", "-z", "--full-tree", "--end-of-options", revision)
        self._blobs = {}
        for line in listed.decode(errors="replace").split("\0"):
            words, _, name = line.partition("\t")
            if is_wanted(name) and words.startswith("100"):
                self._blobs[name] = words.split()[2]

    def __getitem__(self, name: str) -> bytes:
        return _git(self._path, "cat-file", "blob", self._blobs[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __len__(self) -> int:
        return len(self._blobs)


def _newest_tag(path: Path, minor: str) -> str:
    tags = _git(path, "tag", "--list", f"v{minor}.*").decode().split()
    released = [tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]
    if not released:
        raise BundlerError(
            f"{path} has no tag v{minor}.PATCH", hint="name a commit, branch or tag: REVISION=…"
        )
    return max(released, key=lambda tag: int(tag.rpartition(".")[2]))


def _git(path: Path, *words: str) -> bytes:
    command = ["git", "--git-dir", str(path), *words]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except OSError as error:
        raise BundlerError(f"git cannot be started: {error}") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise BundlerError(f"{path}: git {words[0]} failed: {reason}")
    return done.stdout
