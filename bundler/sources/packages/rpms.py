"""Read the headers of .rpm files and check their signatures.

Source: rpm(8), rpmkeys(8); https://rpm-software-management.github.io/rpm/manual/dependencies.html
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from bundler.errors import ArtifactError
from bundler.sources.packages.files import PackageFile, PackageNeed

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "noarch": "all"}
FACTS = (
    "fact %{NAME}\\nfact %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\nfact %{ARCH}\\nfact %{SIZE}\\n"
    "fact %{SOURCERPM}\\n"
    "[needs %{REQUIRENAME}\\n][provides %{PROVIDENAME}\\n][provides %{FILENAMES}\\n]"
)
PLAIN = re.compile(r"[^\s:|,]+")
"""Capabilities that the list of packages can hold; rpm checks the others on hosts."""
PROGRAMS = re.compile(r"/(?:usr/)?s?bin/|/etc/")
"""Files that packages may require by path."""
SIGNED = re.compile(r": .*\bsignatures\b.* OK$|: .*\bpgp\b.* OK$", re.MULTILINE)


def read_rpm(path: Path, keyring: Path | None = None) -> PackageFile:
    """Read an .rpm file; with `keyring`, check that one of its keys signed the file.

    Raises ArtifactError if the file is invalid or not signed, or rpm is missing.
    """
    if keyring is not None:
        _check_signature(path, keyring)
    done = _run("rpm", "-qp", "--nosignature", "--nodigest", "--queryformat", FACTS, str(path))
    lines = [line.partition(" ")[::2] for line in done.stdout.splitlines()]
    facts = [text for kind, text in lines if kind == "fact"]
    if done.returncode or len(facts) != 5:
        reason = (done.stderr.strip().splitlines() or ["no header"])[-1]
        raise ArtifactError(f"{path}: not an RPM package: {reason}")
    name, version, machine, size, source = facts
    version = version.removeprefix("0:")  # epoch 0 is left out, as dnf does
    if machine not in ARCHITECTURES:
        raise ArtifactError(f"{path}: {name} is for {machine}, but no node is")
    provides = {text for kind, text in lines if kind == "provides"}
    needs = dict.fromkeys(text for kind, text in lines if kind == "needs")
    return PackageFile(
        path=path,
        file_name=f"{name}-{version.rpartition(':')[2]}.{machine}.rpm",
        name=name,
        version=version,
        arch=ARCHITECTURES[machine],
        kilobytes=int(size) >> 10,
        needs=tuple(
            (PackageNeed(name=text),) for text in needs if _is_listed(text) and text not in provides
        ),
        provides=tuple(
            PackageNeed(name=text)
            for text in sorted(provides)
            if text[:1] != "/" or PROGRAMS.match(text)
        ),
        source=source if source.endswith(".src.rpm") else "",
    )


def _is_listed(capability: str) -> bool:
    """Whether a capability is in the list: not built into rpm, and not an expression."""
    return bool(PLAIN.fullmatch(capability)) and not capability.startswith(("rpmlib(", "("))


def _check_signature(path: Path, keyring: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bundler-rpm-") as database:
        taken = _run("rpmkeys", "--dbpath", database, "--import", str(keyring))
        if taken.returncode:
            reason = taken.stderr.strip().partition("\n")[0]
            raise ArtifactError(f"{keyring}: not a public key as rpm reads it: {reason}")
        done = _run("rpmkeys", "--dbpath", database, "--checksig", str(path))
    # rpmkeys prints "digests OK" for a file without a signature, too
    if done.returncode or not SIGNED.search(done.stdout):
        said = done.stdout.strip().rpartition(": ")[2] or done.stderr.strip()
        raise ArtifactError(
            f"{path} is not signed by {keyring.name} ({said})",
            hint="use the distribution's own files, or set packages.keyring to their key",
        )


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{command[0]} is missing on this machine; it reads RPM packages",
            hint="install rpm (Debian and Ubuntu have it too)",
        ) from error
