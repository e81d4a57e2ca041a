"""Directories of files: what is in them, and the MANIFEST of a bundle that a test edited."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trees:
    """Unpacked bundles that a test may change: `trees / node` copies that node's on first use."""

    source: Path
    directory: Path

    def __truediv__(self, path: str) -> Path:
        node = path.partition("/")[0]
        if (self.source / node).is_dir() and not (self.directory / node).exists():
            shutil.copytree(self.source / node, self.directory / node)
        return self.directory / path

    def __str__(self) -> str:
        return str(self.directory)


def list_tree(directory: Path) -> dict[str, str]:
    """Map the path of every file to its mode and digest."""
    return {
        path.relative_to(directory).as_posix(): f"{path.stat().st_mode & 0o777:o} "
        + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def rewrite_manifest(bundle: Path) -> None:
    """Write the MANIFEST that matches the files of the bundle."""
    lines = []
    for path in sorted(
        path for path in bundle.rglob("*") if path.is_file() and path.name != "MANIFEST"
    ):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        mode = path.stat().st_mode & 0o777
        lines.append(f"{digest} {mode:04o} {path.stat().st_size} {path.relative_to(bundle)}\n")
    (bundle / "MANIFEST").write_text("".join(lines))
