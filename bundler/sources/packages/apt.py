"""Resolve Debian packages with apt in a separate root, for hosts of another release.

Only the programs of the builder's apt are used. Lists, status, keys, sources and settings are in
the cache, and apt checks every signature itself.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import unquote

from bundler.errors import ArtifactError
from bundler.files import write_atomically
from bundler.formats.digests import hash_file
from bundler.private_files import ensure_private_directory, read_note, remove_unless_private
from bundler.sources.packages.repositories import AptRepositories

TIMEOUT = 900  # seconds for one call of apt
NOTE = "lists.sha256"
"""The digests of the indices that apt verified: with --offline it does not verify them again."""
DEPTH = 5  # how far a chain of uninstallable packages is followed
ESSENTIAL = re.compile(r"^Essential: yes$|^Priority: required$", re.MULTILINE)
URI_LINE = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+)")
UNMET = re.compile(r"^ \S+ : ")
NOT_GOING = re.compile(r"(\S+)(?: \([^)]*\))? but it is not (?:going to be installed|installable)")
KEPT_SETTINGS = re.compile(
    r"^(?:Acquire::(?:https?::(?:\S+::)?(?:Proxy|CaInfo|Timeout)(?:::\S+)?"
    r'|Check-Valid-Until|Check-Date|Retries)) "[^"]+";$',
    re.MULTILINE,
)
"""Settings of the builder's apt that apply to its own sources."""

SETTINGS = """\
Dir "{root}";
Dir::State "{root}";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}";
Dir::Cache::archives "{root}/archives";
Dir::Etc "{root}";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{root}/sources";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Debug::NoLocking "true";
"""
# Sandbox::User is root because only the owner can read the root's directory. NoLocking is safe
# because the cache's lock excludes other runs.


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPackage:
    """One resolved package, from the signed index."""

    name: str
    version: str
    arch: str
    url: str
    size: int
    digest: str  # sha256:…
    index: str  # suite/component


class AptRoot:
    """A separate apt root for one release and architecture."""

    def __init__(self, root: Path, repositories: AptRepositories, arch: str) -> None:
        """Prepare the directory `root`, which the caller has locked.

        Raises ArtifactError if apt is missing.
        """
        if not shutil.which("apt-get"):
            raise ArtifactError(
                "apt is missing on this machine; it resolves Debian packages",
                hint="run bundler lock on Debian or Ubuntu, or set packages.dir",
            )
        self.root = root
        self.repositories = repositories
        remove_unless_private(root)
        for name in ("lists/partial", "archives/partial", "sources"):
            ensure_private_directory(root / name, top=root, option="--cache")
        settings = SETTINGS.format(root=root, arch=arch)
        if repositories.is_own:
            settings += _own_settings()
        write_atomically(root / "apt.conf", settings.encode())
        write_atomically(root / "sources/bundler.sources", repositories.render(arch).encode())
        write_atomically(root / "status", b"")

    def update(self) -> None:
        """Update the signed indices; ArtifactError if one is missing or not validly signed."""
        if not self.has_lists():
            shutil.rmtree(self.root / "lists")
            ensure_private_directory(self.root / "lists/partial", top=self.root, option="--cache")
        done = self._run("apt-get", "update", "-q")
        if done.returncode:
            raise ArtifactError(
                f"the package lists cannot be downloaded or verified:\n{_read_errors(done)}",
                hint="check packages.mirror and the network; if a signature is not accepted, check"
                " packages.keyring; for a snapshot that has expired, set packages.frozen",
            )
        write_atomically(self.root / NOTE, self._hash_lists())

    def has_lists(self) -> bool:
        """Whether there are indices from an earlier run, which verified them, unaltered."""
        return read_note(self.root / NOTE) == self._hash_lists()

    def _hash_lists(self) -> bytes:
        files = sorted(path for path in (self.root / "lists").iterdir() if path.is_file())
        return "".join(f"{hash_file(path, 'sha256')}  {path.name}\n" for path in files).encode()

    def set_base(self, more: Sequence[str]) -> None:
        """Treat the minimal installation and `more` as installed.

        A minimal installation has the packages that are essential or of priority `required`, and
        their dependencies.
        """
        available = self._call("apt-cache", "dumpavail").split("\n\n")
        minimal = [_field(text, "Package") for text in available if ESSENTIAL.search(text)]
        simulated = self._resolve("--simulate", [*dict.fromkeys((*minimal, *more))])
        names = {line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")}
        shown = self._show(sorted(names))
        status = "".join(f"{text.rstrip()}\nStatus: install ok installed\n\n" for text in shown)
        write_atomically(self.root / "status", status.encode())

    def find(self, names: Sequence[str]) -> tuple[FoundPackage, ...]:
        """The packages and their dependencies outside the base, sorted by name.

        Raises ArtifactError with the packages that cannot be resolved, and the reasons.
        """
        if not names:
            return ()
        listed = self._resolve("--print-uris", ["--reinstall", *names])
        urls = {}
        for match in URI_LINE.finditer(listed):
            name, version, arch = match["file"].removesuffix(".deb").split("_")
            urls[name, unquote(version), arch] = match["url"]
        indices = self._indices([name for name, _, _ in urls])
        found = []
        for text in self._show([f"{name}={version}" for name, version, _ in urls]):
            key = tuple(_field(text, field) for field in ("Package", "Version", "Architecture"))
            name, version, arch = key
            url = urls[name, version, arch]
            found.append(
                FoundPackage(
                    name=name, version=version, arch=arch, url=url,
                    size=int(_field(text, "Size")), digest=f"sha256:{_field(text, 'SHA256')}",
                    index=_index_of(url, indices[name, version]),
                )
            )  # fmt: skip
        return tuple(sorted(found, key=lambda package: package.name))

    def _resolve(self, option: str, names: Sequence[str]) -> str:
        done = self._install(option, *names)
        if done.returncode:
            lines = [line for name in names for line in self._explain_one(name)]
            raise ArtifactError(
                "these packages cannot be resolved:\n" + "\n".join(lines or self._explain(done)),
                hint="correct packages.names, packages.add or packages.base; check that the mirror"
                " has every suite and component and is not being updated",
            )
        return done.stdout

    def _explain_one(self, name: str) -> Iterator[str]:
        """Why a package alone cannot be resolved; nothing if it can."""
        done = self._install("--simulate", name)
        if done.returncode and not name.startswith("-"):
            yield f"  {name} cannot be resolved:"
            yield from (f"  {line}" for line in self._explain(done))

    def _explain(self, done: "subprocess.CompletedProcess[str]") -> Iterator[str]:
        """apt's reasons, also for dependencies that are 'not going to be installed'."""
        checked: set[str] = set()
        waiting = [(done, 1)]
        while waiting:
            answer, depth = waiting.pop(0)
            lines = [line.rstrip() for line in answer.stdout.splitlines()]
            begin = next((i for i, line in enumerate(lines) if UNMET.match(line)), len(lines))
            reasons = [line.strip() for line in lines[begin:] if line.startswith(" ")]
            yield from (
                f"{'  ' * depth}{line}" for line in reasons or [_read_errors(answer).strip()]
            )
            for name in NOT_GOING.findall("\n".join(reasons)):
                why = self._install("--simulate", name)
                if why.returncode and name not in checked and depth < DEPTH:
                    waiting.append((why, depth + 1))
                checked.add(name)

    def _install(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self._run("apt-get", "install", "--no-remove", *arguments)

    def _show(self, names: Sequence[str]) -> list[str]:
        """The index stanza of each package (`name` or `name=version`)."""
        if not names:
            return []
        text = self._call("apt-cache", "show", "--no-all-versions", *names)
        return [stanza for stanza in text.split("\n\n") if stanza.strip()]

    def _indices(self, names: Sequence[str]) -> dict[tuple[str, str], list[list[str]]]:
        """(name, version) → URI and suite/component of every index that has it."""
        found: dict[tuple[str, str], list[list[str]]] = {}
        for line in self._call("apt-cache", "madison", *names).splitlines():
            row = [part.strip() for part in line.split("|")]
            if len(row) == 3:
                found.setdefault((row[0], row[1]), []).append(row[2].split()[:2])
        return found

    def _call(self, *command: str) -> str:
        done = self._run(*command)
        if done.returncode:
            raise ArtifactError(f"{command[0]} {command[1]} failed:\n{_read_errors(done)}")
        return done.stdout

    def _run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C"}
        try:
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL, timeout=TIMEOUT, umask=0o077,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(
                f"{' '.join(command[:2])} did not finish within {TIMEOUT} s",
                hint="check the mirror and the network",
            ) from error


def _index_of(url: str, indices: list[list[str]]) -> str:
    """The suite/component of a file: the first index of its repository that has it."""
    _, index = max(indices, key=lambda one: url.startswith(f"{one[0].rstrip('/')}/"))
    return index


def _own_settings() -> str:
    """Proxies and similar settings of the builder's apt."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return "".join(f"{match[0]}\n" for match in KEPT_SETTINGS.finditer(done.stdout))


def _read_errors(done: "subprocess.CompletedProcess[str]") -> str:
    """apt's errors and warnings, without the prefixes E: and W:."""
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return "\n".join(f"  {line[3:].strip()}" for line in dict.fromkeys(lines)) or (
        f"  exit code {done.returncode}"
    )


def _field(stanza: str, name: str) -> str:
    return HeaderParser().parsestr(stanza.strip()).get(name, "").strip()
