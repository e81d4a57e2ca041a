"""The files of an add-on: a file, a folder, or a folder with a kustomization.yaml."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.cluster.schema import Cluster
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import MANIFESTS

SUFFIXES = (".yaml", ".yml", ".json")
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
MOST_FILES = 1000

Render = Callable[[Path, Cluster], bytes]
"""A folder with a kustomization.yaml, and the cluster → its objects as YAML.

Raises BundlerError.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Manifests, and where they come from."""

    label: str  # in messages: the path of the file, or of the kustomization
    content: bytes
    is_rendered: bool = False  # its lines are in no file

    @property
    def digest(self) -> str:
        """The SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


def read_manifests(path: Path, cluster: Cluster, render: Render, base: Path) -> Iterator[Text]:
    """Yield the texts of an add-on, sorted by path; labels are relative to `base` if below it.

    Raises ConfigError if a file cannot be read, ArtifactError if there is no program to render.
    """
    if not path.is_dir():
        yield Text(label=show_file(path, base), content=read_file(path))
        return
    if kustomization := find_kustomization(path):
        label = show_file(kustomization, base)
        yield Text(label=label, content=render(path, cluster), is_rendered=True)
        return
    files = list(_list_files(path))
    if not files:
        raise ConfigError(f"{show_file(path, base)}: has no {', '.join(SUFFIXES)} file")
    if len(files) > MOST_FILES:
        raise ConfigError(f"{show_file(path, base)}: more than {MOST_FILES} files")
    for file in files:
        yield Text(label=show_file(file, base), content=read_file(file))


def find_kustomization(folder: Path) -> Path | None:
    """The kustomization.yaml of a folder; None if it has none."""
    return next((folder / n for n in KUSTOMIZATIONS if (folder / n).is_file()), None)


def _list_files(folder: Path) -> Iterator[Path]:
    """The files below a folder; those of kustomizations are not manifests, hidden ones neither."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            if find_kustomization(entry):
                raise ConfigError(f"{entry}: is a kustomization: give it an add-on of its own")
            yield from _list_files(entry)
        elif entry.suffix in SUFFIXES:
            yield entry


def read_file(path: Path) -> bytes:
    """Read a regular file; a link may lead to one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: must be a file or a folder")
            return file.read(MANIFESTS.size + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def show_file(path: Path, base: Path) -> str:
    """The path of a file in messages: relative to `base`."""
    return str(path.relative_to(base)) if path.is_relative_to(base) else os.path.relpath(path, base)
