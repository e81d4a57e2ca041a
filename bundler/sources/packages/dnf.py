"""dnf with a root of its own: which RPM packages a set of names means on a host of another release.

dnf's solver is asked by its own Python (dnf_solve.py). Nothing of the builder is used but the
programs and, where the builder runs the same distribution, its repositories. What repositories
say is not believed: every package file must be signed by the distribution's key (rpms.py).
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
from bundler.sources.packages.apt import FoundPackage
from bundler.sources.packages.repositories import OS_RELEASE, read_os
from bundler.sources.packages.rpms import ARCHITECTURES

TIMEOUT = 900  # seconds that one call of dnf may take
REPOSITORIES = Path("/etc/yum.repos.d")
SOLVER = Path(__file__).with_name("dnf_solve.py")
MACHINES = {Arch.AMD64: "x86_64", Arch.ARM64: "aarch64"}
"""Kubernetes' spelling → RPM's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnfRepositories:
    """All that packages are resolved against, and the key that must have signed them."""

    addresses: tuple[str, ...]
    directory: Path | None  # of the builder's own configuration
    keyring: Path

    @property
    def is_local(self) -> bool:
        """Whether no network is needed."""
        return not self.directory and all(one.startswith("file:") for one in self.addresses)


def find_rpm_repositories(
    packages: Packages, *, directory: Path = REPOSITORIES, os_release: Path = OS_RELEASE
) -> DnfRepositories:
    """Where the packages of `packages.os` are; ArtifactError where nothing says so."""
    release = RELEASES[packages.os]
    keyring = packages.keyring or Path(release.family.keyring.format(codename=release.codename))
    if not keyring.is_file():
        raise ArtifactError(
            f"{keyring} is missing: nothing would tell {packages.os}'s packages from others",
            hint="name the distribution's public key (ASCII armour) in packages.keyring",
        )
    is_own = not packages.mirror and read_os(os_release).partition(".")[0] == packages.os
    if not packages.mirror and not is_own:
        raise ArtifactError(
            f"nothing says where {packages.os}'s packages are: this machine is configured for"
            " another distribution, or for none",
            hint="give packages.mirror, a list of directories that hold repodata/, such as"
            " https://mirror.example/rocky/9/BaseOS/$basearch/os",
        )
    return DnfRepositories(
        addresses=packages.mirror, directory=directory if is_own else None, keyring=keyring
    )


class DnfRoot:
    """A root of dnf's for one release and architecture."""

    def __init__(self, root: Path, repositories: DnfRepositories, release: str, arch: Arch) -> None:
        """`root` is a directory that the caller locked; ArtifactError where there is no dnf 4."""
        self.root, self.repositories = root, repositories
        self.release, self.machine = release, MACHINES[arch]
        self.interpreter = _find_interpreter()

    def has_lists(self) -> bool:
        """Whether an earlier run left metadata."""
        return any((self.root / "cache").glob("*.solv")) or any(
            (self.root / "cache").glob("*/repodata/repomd.xml")
        )

    def find(
        self, names: Sequence[str], base: Sequence[str], *, offline: bool
    ) -> tuple[FoundPackage, ...]:
        """The names, and what they need beyond a minimal installation and `base`; by name.

        Raises ArtifactError with dnf's reasons where one cannot be had.
        """
        if not names:
            return ()
        wish = {
            "root": str(self.root), "arch": self.machine, "release": self.release, "base": [*base],
            "minimal": MINIMAL_RPM, "names": [*names], "offline": offline,
            "addresses": self.repositories.addresses,
            "reposdir": [str(self.repositories.directory or self.root / "none")],
        }  # fmt: skip
        answer = self._ask(wish)
        if "error" in answer:
            raise ArtifactError(
                f"these packages cannot be brought together:\n{_indent(answer['error'])}",
                hint="correct packages.names, add or base; or packages.mirror lacks a repository"
                " (BaseOS, AppStream, EPEL …), or cannot be reached",
            )
        return tuple(
            FoundPackage(
                name=one["name"], version=one["version"], arch=ARCHITECTURES[one["arch"]],
                url=one["url"], size=one["size"], digest=one["digest"], index=one["index"],
            )
            for one in answer["found"]
        )  # fmt: skip

    def _ask(self, wish: dict[str, object]) -> dict[str, Any]:
        try:  # -I: not this very module under the name dnf
            done = subprocess.run(
                [self.interpreter, "-I", SOLVER], input=json.dumps(wish), capture_output=True,
                text=True, check=False, timeout=TIMEOUT, env={**os.environ, "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(
                f"dnf did not end within {TIMEOUT} s", hint="check the mirror and the network"
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
    """The Python that dnf itself runs with, as the program's first line has it."""
    program = shutil.which("dnf-3") or shutil.which("dnf")
    if program is None:
        raise ArtifactError(
            "RPM packages are resolved by dnf, which this machine does not have",
            hint="install dnf 4 and rpm (Debian and Ubuntu have both), or give the files:"
            " packages.dir",
        )
    with Path(program).open("rb") as stream:
        words = stream.readline(200).decode(errors="replace").removeprefix("#!").split()
    if not words or "python" not in words[0]:
        raise ArtifactError(
            f"{program} is not dnf 4, whose Python module resolves packages",
            hint="install dnf 4 (package python3-dnf), or give the files: packages.dir",
        )
    return words[0]


def _indent(text: object) -> str:
    return "\n".join(f"  {line.strip()}" for line in str(text).splitlines())
