"""Resolve RPM packages with dnf in a separate root, for hosts of another release.

dnf_solve.py calls the solver in dnf's own Python. Only the programs of the builder are used, and
its repositories if it runs the same distribution. The metadata of repositories is not trusted:
every package file must be signed by the distribution's key (rpms.py).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.cluster.inputs import Packages
from bundler.cluster.os_packages import MINIMAL_RPM, RELEASES
from bundler.cluster.values import Arch
from bundler.errors import ArtifactError
from bundler.private_files import remove_unless_private
from bundler.sources.packages.apt import FoundPackage
from bundler.sources.packages.repositories import OS_RELEASE, read_os
from bundler.sources.packages.rpms import ARCHITECTURES

TIMEOUT = 900  # seconds for one call of dnf
MAX_FILE = 1 << 30  # bytes of a file of metadata, compressed or not: a mirror may send without end
MAX_MEMORY = 4 << 30  # bytes of dnf's address space
REPOSITORIES = Path("/etc/yum.repos.d")
SOLVER = Path(__file__).with_name("dnf_solve.py")
MACHINES = {Arch.AMD64: "x86_64", Arch.ARM64: "aarch64"}
"""Kubernetes' spelling → RPM's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnfRepositories:
    """The repositories that packages are resolved with, and the key that must sign them."""

    addresses: tuple[str, ...]
    directory: Path | None  # of the builder's configuration
    keyring: Path

    @property
    def is_local(self) -> bool:
        """Whether no network is needed."""
        return not self.directory and all(one.startswith("file:") for one in self.addresses)


def find_rpm_repositories(
    packages: Packages, *, directory: Path = REPOSITORIES, os_release: Path = OS_RELEASE
) -> DnfRepositories:
    """The repositories of `packages.os`; ArtifactError if none is configured."""
    release = RELEASES[packages.os]
    keyring = packages.keyring or Path(release.family.keyring.format(codename=release.codename))
    if not keyring.is_file():
        raise ArtifactError(
            f"{keyring} is missing: it is needed to verify the packages of {packages.os}",
            hint="set packages.keyring to the distribution's public key (ASCII armour)",
        )
    is_own = not packages.mirror and read_os(os_release).partition(".")[0] == packages.os
    if not packages.mirror and not is_own:
        raise ArtifactError(
            f"no repository of {packages.os} is known: this machine is configured for another"
            " distribution or has no sources",
            hint="set packages.mirror, a list of directories that have repodata/, such as"
            " https://mirror.example/rocky/9/BaseOS/$basearch/os",
        )
    return DnfRepositories(
        addresses=packages.mirror, directory=directory if is_own else None, keyring=keyring
    )


class DnfRoot:
    """A separate dnf root for one release and architecture."""

    def __init__(self, root: Path, repositories: DnfRepositories, release: str, arch: Arch) -> None:
        """`root` is a directory that the caller locked; ArtifactError if there is no dnf 4."""
        remove_unless_private(root)
        self.root, self.repositories = root, repositories
        self.release, self.machine = release, MACHINES[arch]
        self.interpreter = _find_interpreter()

    def has_lists(self) -> bool:
        """Whether there is metadata from an earlier run."""
        return any((self.root / "cache").glob("*.solv")) or any(
            (self.root / "cache").glob("*/repodata/repomd.xml")
        )

    def find(
        self, names: Sequence[str], base: Sequence[str], *, offline: bool
    ) -> tuple[FoundPackage, ...]:
        """The packages and their dependencies outside a minimal installation and `base`, by name.

        Raises ArtifactError with dnf's reasons if a package cannot be resolved.
        """
        if not names:
            return ()
        request = {
            "root": str(self.root), "arch": self.machine, "release": self.release, "base": [*base],
            "minimal": MINIMAL_RPM, "names": [*names], "offline": offline,
            "addresses": self.repositories.addresses,
            "most": {"file": MAX_FILE, "memory": MAX_MEMORY},
            "reposdir": [str(self.repositories.directory or self.root / "none")],
        }  # fmt: skip
        answer = self._solve(request)
        if "error" in answer:
            raise ArtifactError(
                f"these packages cannot be resolved:\n{_indent(answer['error'])}",
                hint="correct packages.names, packages.add or packages.base; check that"
                " packages.mirror can be reached and has every repository (BaseOS, AppStream,"
                " EPEL …)",
            )
        return tuple(
            FoundPackage(
                name=one["name"], version=one["version"], arch=ARCHITECTURES[one["arch"]],
                url=one["url"], size=one["size"], digest=one["digest"], index=one["index"],
            )
            for one in answer["found"]
        )  # fmt: skip

    def _solve(self, request: dict[str, object]) -> dict[str, Any]:
        try:  # -I: the solver must not import this directory's dnf.py as dnf
            done = subprocess.run(
                [self.interpreter, "-I", SOLVER], input=json.dumps(request), capture_output=True,
                text=True, check=False, timeout=TIMEOUT, env={**os.environ, "LC_ALL": "C.UTF-8"},
                umask=0o077,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(
                f"dnf did not finish within {TIMEOUT} s", hint="check the mirror and the network"
            ) from error
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ArtifactError(
                f"dnf failed: {last}", hint="dnf 4 with its Python module is needed"
            ) from error
        return answer


def _find_interpreter() -> str:
    """The Python of dnf, from the first line of the program."""
    program = shutil.which("dnf-3") or shutil.which("dnf")
    if not program:
        raise ArtifactError(
            "dnf is missing on this machine; it resolves RPM packages",
            hint="install dnf 4 and rpm (Debian and Ubuntu have both), or download the packages"
            " yourself and set packages.dir",
        )
    with Path(program).open("rb") as stream:
        words = stream.readline(200).decode(errors="replace").removeprefix("#!").split()
    if not words or "python" not in words[0]:
        raise ArtifactError(
            f"{program} is not dnf 4; its Python module resolves packages",
            hint="install dnf 4 (package python3-dnf), or set packages.dir",
        )
    return words[0]


def _indent(text: object) -> str:
    return "\n".join(f"  {line.strip()}" for line in str(text).splitlines())
