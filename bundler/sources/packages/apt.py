"""apt with a root of its own: which packages a set of names means on a host of another release.

Nothing of the builder's own apt is used but its program: lists, status, keys, sources and settings
lie in the cache, and apt checks every signature itself.
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
from bundler.sources.packages.repositories import AptRepositories

TIMEOUT = 900  # seconds that one call of apt may take
DEPTH = 5  # how far a chain of packages that cannot be had is followed
ESSENTIAL = re.compile(r"^Essential: yes$|^Priority: required$", re.MULTILINE)
URI_LINE = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+)")
UNMET = re.compile(r"^ \S+ : ")
NOT_GOING = re.compile(r"(\S+)(?: \([^)]*\))? but it is not (?:going to be installed|installable)")
KEPT_SETTINGS = re.compile(
    r"^(?:Acquire::(?:https?::(?:\S+::)?(?:Proxy|CaInfo|Timeout)(?:::\S+)?"
    r'|Check-Valid-Until|Check-Date|Retries)) "[^"]+";$',
    re.MULTILINE,
)
"""What the builder's administrator has decided about its own sources."""

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
# The root's directory is for its owner only, so apt's own user could not read it. The cache's lock
# keeps others out.


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPackage:
    """One package of a closure, as the signed index has it."""

    name: str
    version: str
    arch: str
    url: str
    size: int
    digest: str  # sha256:…
    index: str  # suite/component


class AptRoot:
    """A root of apt's for one release and architecture."""

    def __init__(self, root: Path, repositories: AptRepositories, arch: str) -> None:
        """Prepare the directory `root`, which the caller has locked.

        Raises ArtifactError where the machine has no apt.
        """
        if shutil.which("apt-get") is None:
            raise ArtifactError(
                "packages are resolved by apt, which this machine does not have",
                hint="run bundler lock on Debian or Ubuntu, or give the files: packages.dir",
            )
        self.root = root
        self.repositories = repositories
        for name in ("lists/partial", "archives/partial", "sources"):
            (root / name).mkdir(parents=True, exist_ok=True)
        settings = SETTINGS.format(root=root, arch=arch)
        if repositories.is_own:
            settings += _own_settings()
        write_atomically(root / "apt.conf", settings.encode())
        write_atomically(
            root / "sources/bundler.sources", repositories.render(arch).encode(), mode=0o644
        )
        write_atomically(root / "status", b"")

    def update(self) -> None:
        """Bring the signed indices up to date; ArtifactError where one is not what it must be."""
        done = self._run("apt-get", "update", "-q")
        if done.returncode:
            raise ArtifactError(
                f"the package lists cannot be had or believed:\n{_faults(done)}",
                hint="check packages.mirror and the network; where a signature is not accepted,"
                " packages.keyring; a snapshot whose date has passed wants packages.frozen",
            )

    def has_lists(self) -> bool:
        """Whether an earlier update left indices."""
        return any((self.root / "lists").glob("*Release"))

    def set_base(self, more: Sequence[str]) -> None:
        """Take the minimal installation and `more` for installed.

        Minimal is what is essential or of priority `required`, with what it needs.
        """
        available = self._call("apt-cache", "dumpavail").split("\n\n")
        minimal = [_field(text, "Package") for text in available if ESSENTIAL.search(text)]
        simulated = self._resolve("--simulate", [*dict.fromkeys((*minimal, *more))])
        names = {line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")}
        shown = self._show(sorted(names))
        status = "".join(f"{text.rstrip()}\nStatus: install ok installed\n\n" for text in shown)
        write_atomically(self.root / "status", status.encode())

    def find(self, names: Sequence[str]) -> tuple[FoundPackage, ...]:
        """The names, and what they need beyond the base; sorted by name.

        Raises ArtifactError that says which cannot be had, and why.
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

    def _resolve(self, how: str, names: Sequence[str]) -> str:
        done = self._install(how, *names)
        if done.returncode:
            lines = [line for name in names for line in self._explain_one(name)]
            raise ArtifactError(
                "these packages cannot be brought together:\n"
                + "\n".join(lines or self._explain(done)),
                hint="correct packages.names, add or base; or the mirror lacks a suite or a"
                " component, or is in the midst of an update",
            )
        return done.stdout

    def _explain_one(self, name: str) -> Iterator[str]:
        """Why a package cannot be had, whatever else is wanted; nothing where it can."""
        done = self._install("--simulate", name)
        if done.returncode and not name.startswith("-"):
            yield f"  {name} cannot be had:"
            yield from (f"  {line}" for line in self._explain(done))

    def _explain(self, done: "subprocess.CompletedProcess[str]") -> Iterator[str]:
        """apt's own words; where it only says that a package is not going to be, why not that."""
        asked: set[str] = set()
        waiting = [(done, 1)]
        while waiting:
            answer, depth = waiting.pop(0)
            lines = [line.rstrip() for line in answer.stdout.splitlines()]
            begin = next((i for i, line in enumerate(lines) if UNMET.match(line)), len(lines))
            told = [line.strip() for line in lines[begin:] if line.startswith(" ")]
            yield from (f"{'  ' * depth}{line}" for line in told or [_faults(answer).strip()])
            for name in NOT_GOING.findall("\n".join(told)):
                why = self._install("--simulate", name)
                if why.returncode and name not in asked and depth < DEPTH:
                    waiting.append((why, depth + 1))
                asked.add(name)

    def _install(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self._run("apt-get", "install", "--no-remove", *arguments)

    def _show(self, names: Sequence[str]) -> list[str]:
        """The stanzas of packages (`name` or `name=version`) in the index, one each."""
        if not names:
            return []
        text = self._call("apt-cache", "show", "--no-all-versions", *names)
        return [stanza for stanza in text.split("\n\n") if stanza.strip()]

    def _indices(self, names: Sequence[str]) -> dict[tuple[str, str], list[list[str]]]:
        """(name, version) → URI, and suite and component, of every index that has it."""
        found: dict[tuple[str, str], list[list[str]]] = {}
        for line in self._call("apt-cache", "madison", *names).splitlines():
            row = [part.strip() for part in line.split("|")]
            if len(row) == 3:
                found.setdefault((row[0], row[1]), []).append(row[2].split()[:2])
        return found

    def _call(self, *command: str) -> str:
        done = self._run(*command)
        if done.returncode:
            raise ArtifactError(f"{command[0]} {command[1]} failed:\n{_faults(done)}")
        return done.stdout

    def _run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C"}
        try:
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL, timeout=TIMEOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(
                f"{' '.join(command[:2])} did not end within {TIMEOUT} s",
                hint="check the mirror and the network",
            ) from error


def _index_of(url: str, indices: list[list[str]]) -> str:
    """The suite and component that a file comes from: its repository's first that has it."""
    _, index = max(indices, key=lambda one: url.startswith(f"{one[0].rstrip('/')}/"))
    return index


def _own_settings() -> str:
    """Proxies and the like, as the builder's own apt has them."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return "".join(f"{match[0]}\n" for match in KEPT_SETTINGS.finditer(done.stdout))


def _faults(done: "subprocess.CompletedProcess[str]") -> str:
    """apt's errors and warnings, without their marks."""
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E: ", "W: "))]
    return "\n".join(f"  {line[3:].strip()}" for line in dict.fromkeys(lines)) or (
        f"  exit code {done.returncode}"
    )


def _field(stanza: str, name: str) -> str:
    return HeaderParser().parsestr(stanza.strip()).get(name, "").strip()
