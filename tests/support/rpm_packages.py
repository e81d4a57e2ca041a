"""Small RPM packages from rpmbuild, signed with the test's own key, and repositories of them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_rpm = pytest.mark.skipif(
    not all(map(shutil.which, ("rpm", "rpmbuild", "rpmkeys"))),
    reason="RPM packages cannot be made: there is no rpm or rpmbuild",
)
needs_dnf = pytest.mark.skipif(
    not all(map(shutil.which, ("dnf", "rpmbuild", "rpmsign", "createrepo_c", "gpg", "gpgconf"))),
    reason="RPM packages cannot be resolved: there is no dnf, rpmbuild, createrepo_c or gpg",
)

SPEC = """\
Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: a test's
License: none
{noarch}
{fields}
AutoReqProv: no
%description
A test's.
%install
mkdir -p %{{buildroot}}/usr/share/doc/{name} %{{buildroot}}/usr/bin
echo {name} >%{{buildroot}}/usr/share/doc/{name}/text
{install}
%files
/usr/share/doc/{name}/text
{files}
{more}
"""


@dataclass(frozen=True)
class RpmSigner:
    """A key pair in a separate directory, and the public key in ASCII armour."""

    home: Path
    keyring: Path

    def gpg(self, *arguments: str) -> None:
        subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet", *arguments],
            check=True, capture_output=True,
        )  # fmt: skip

    def sign(self, path: Path) -> None:
        subprocess.run(
            ["rpmsign", "--define", f"_gpg_path {self.home}", "--define", "_gpg_name test@example.org", "--define", f"__gpg {shutil.which('gpg')}", "--addsign", path],
            check=True, capture_output=True,
        )  # fmt: skip


@contextmanager
def make_rpm_signer() -> Iterator[RpmSigner]:
    with tempfile.TemporaryDirectory(
        prefix="k"
    ) as directory:  # the socket of gpg-agent needs a short path
        home = Path(directory)
        signer = RpmSigner(home, home / "RPM-GPG-KEY-test")
        signer.gpg(
            "--passphrase", "", "--quick-generate-key", "test@example.org", "rsa2048", "sign"
        )
        signer.gpg("--armor", "--output", str(signer.keyring), "--export")
        yield signer
        subprocess.run(["gpgconf", "--homedir", directory, "--kill", "all"], check=False)


def write_rpm(
    directory: Path, name: str, version: str = "1.0-1", *, arch: str = "x86_64", program: str = "",
    signer: RpmSigner | None = None, more: str = "", **fields: str,
) -> Path:  # fmt: skip
    """A package with one documentation file and perhaps a program; keywords become fields."""
    epoch, _, rest = version.rpartition(":")
    number, _, release = rest.partition("-")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        path = f"/usr/bin/{program}"
        spec = Path(root, f"{name}.spec")
        spec.write_text(
            SPEC.format(
                name=name, noarch="BuildArch: noarch" if arch == "noarch" else "", epoch=epoch or "0", version=number, release=release, more=more,
                fields="\n".join(f"{key}: {value}" for key, value in fields.items()),
                install=f"printf '#!/bin/sh\\n' >%{{buildroot}}{path}; chmod 755 %{{buildroot}}{path}" if program else "",
                files=path if program else "",
            )
        )  # fmt: skip
        done = subprocess.run(
            ["rpmbuild", "-bb", "--quiet", "--target", arch, "--define", f"_topdir {root}", "--define",
             f"_rpmdir {root}/out", "--define", "_build_id_links none", "--define", "source_date_epoch_from_changelog 0", spec],
            check=False, capture_output=True, text=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "HOME": root},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (built,) = Path(root, "out").rglob("*.rpm")
        if signer:
            signer.sign(built)
        return Path(shutil.copy(built, directory / built.name))


def write_rpm_repository(directory: Path) -> None:
    """Write the metadata of all packages below a directory."""
    subprocess.run(
        ["createrepo_c", "--quiet", "--no-database", "--simple-md-filenames", directory],
        check=True, capture_output=True,
    )  # fmt: skip
