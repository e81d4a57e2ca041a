"""Small Debian packages, and repositories of them, signed with the test's own key."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_dpkg_deb = pytest.mark.skipif(
    not shutil.which("dpkg-deb"), reason="Debian packages cannot be read: there is no dpkg-deb"
)
needs_apt = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "dpkg-deb", "gpg", "gpgconf"))),
    reason="Debian packages cannot be resolved: there is no apt, dpkg-deb or gpg",
)


def write_deb(directory: Path, name: str, version: str = "1.0", **fields: str) -> Path:
    """A package with one documentation file; keywords such as `Depends="a"` become fields."""
    arch = fields.pop("Architecture", "amd64")
    control = {
        "Package": name,
        "Version": version,
        "Architecture": arch,
        "Maintainer": "Nobody <nobody@example.org>",
    }
    control |= {key.replace("_", "-"): value for key, value in fields.items()} | {"Description": "a test's"}  # fmt: skip
    with tempfile.TemporaryDirectory() as root:
        document = Path(root, "usr/share/doc", name, "text")
        document.parent.mkdir(parents=True)
        document.write_text(f"{name} {version}\n")
        debian = Path(root, "DEBIAN")
        debian.mkdir(mode=0o755)
        (debian / "control").write_text("".join(f"{k}: {v}\n" for k, v in control.items()))
        target = directory / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", root, str(target)],
            check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"},
        )  # fmt: skip
    return target


@dataclass(frozen=True)
class Signer:
    """A key pair in a separate directory, and the public key as a keyring."""

    home: Path
    keyring: Path

    def gpg(self, *arguments: str) -> None:
        subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet", *arguments],
            check=True, capture_output=True,
        )  # fmt: skip


@contextmanager
def make_signer() -> Iterator[Signer]:
    with tempfile.TemporaryDirectory(
        prefix="k"
    ) as directory:  # the socket of gpg-agent needs a short path
        home = Path(directory)
        signer = Signer(home, home / "keyring.gpg")
        signer.gpg(
            "--passphrase", "", "--quick-generate-key", "test@example.org", "ed25519", "sign"
        )
        signer.gpg("--output", str(signer.keyring), "--export")
        yield signer
        subprocess.run(["gpgconf", "--homedir", directory, "--kill", "all"], check=False)


def write_repository(
    directory: Path, signer: Signer, suites: tuple[str, ...], valid_until: str = ""
) -> None:
    """Write indices of directory/pool for amd64 and arm64, and a signed Release for each suite."""
    for suite in suites:
        dist = directory / "dists" / suite
        sums = []
        for arch in ("amd64", "arm64"):
            stanzas = _stanzas(directory, arch) if suite == suites[0] else ""
            index = dist / "main" / f"binary-{arch}" / "Packages.gz"
            index.parent.mkdir(parents=True, exist_ok=True)
            index.write_bytes(gzip.compress(stanzas.encode(), mtime=0))
            sums += [_sum(index.read_bytes(), index.relative_to(dist)), _sum(stanzas.encode(), index.relative_to(dist).with_suffix(""))]  # fmt: skip
        until = f"Valid-Until: {valid_until}\n" if valid_until else ""
        release = dist / "Release"
        release.write_text(
            f"Origin: test\nSuite: {suite}\nCodename: {suite}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
            f"{until}Architectures: amd64 arm64\nComponents: main\nSHA256:\n{''.join(sums)}"
        )
        signer.gpg("--clearsign", "--output", str(dist / "InRelease"), str(release))
        release.unlink()


def _sum(content: bytes, name: Path) -> str:
    return f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"


def _stanzas(directory: Path, arch: str) -> str:
    found = []
    for path in sorted((directory / "pool").glob("*.deb")):
        control = subprocess.run(
            ["dpkg-deb", "--field", str(path)], capture_output=True, text=True, check=True
        ).stdout
        if f"Architecture: {arch}\n" in control or "Architecture: all\n" in control:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            where = path.relative_to(directory)
            found.append(
                f"{control}Filename: {where}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"
            )
    return "\n".join(found)
