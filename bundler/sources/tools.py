"""Programs that the build itself runs: without a network, and with a home of their own."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bundler.cache.payload import ensure_members, read_payload
from bundler.catalog import MACHINES, Artifact
from bundler.errors import ArtifactError, ConfigError
from bundler.log import make_printable
from bundler.sources.fetch import FetchOptions, ensure_artifact

LIMIT = 120  # seconds that a program may take
SHOWN = 1000  # characters of what a program says about its failure
NOWHERE = "http://127.0.0.1:9"  # the discard port: a proxy that answers nothing


class FailedError(Exception):
    """A program ended with an error; the text is what it said."""


def find_machine(what: str, by_hand: str) -> str:
    """The architecture of the build machine.

    Raises ArtifactError where no program of the catalog runs: `what` is the sentence that says
    which program is needed, `by_hand` what the user can do instead.
    """
    arches = {machine: arch for arch, machine in MACHINES.items()}
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in arches:
        raise ArtifactError(
            f"{what}, and there is none for {system} {machine}",
            hint=f"build on Linux ({' or '.join(arches)}); or {by_hand}",
        )
    return arches[machine]


@contextmanager
def unpack_program(
    artifact: Artifact, member: str, name: str, options: FetchOptions
) -> Iterator[Path]:
    """Put a program of an upstream file alone into a directory, until the block ends.

    An empty `member` is the whole file.
    """
    archive = ensure_artifact(artifact, options)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=options.cache.root) as home:
        program = Path(home) / name
        if member:
            payload = ensure_members(artifact, archive, (member,), options.cache)[member]
            with program.open("wb") as file:
                file.writelines(read_payload(payload))
        else:
            shutil.copyfile(archive, program)
        program.chmod(0o700)
        yield program


def run_program(
    command: Sequence[str | Path], home: Path, environment: Mapping[str, str] | None = None
) -> bytes:
    """Run a program without a network and without other programs; returns what it prints.

    Raises FailedError if it ends with an error, ConfigError if it cannot run or does not end.
    """
    words = [str(word) for word in command]
    name = Path(words[0]).name
    variables = {
        "HOME": str(home), "PATH": str(home / "none"), "KUBECONFIG": os.devnull, "TZ": "UTC",
        "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "", "TMPDIR": str(home),
        **(environment or {}),
    }  # fmt: skip
    try:
        done = subprocess.run(
            [*_find_isolation(), *words], env=variables, cwd=home, stdin=subprocess.DEVNULL,
            capture_output=True, check=False, timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{name} did not end within {LIMIT} s") from error
    except OSError as error:
        raise ConfigError(f"{name} cannot run here: {error.strerror}") from error
    if done.returncode != 0:
        lines = make_printable(done.stderr.decode(errors="replace"), keep="\n").split("\n")
        raise FailedError("; ".join(line for line in lines if line)[:SHOWN])
    return done.stdout


@cache
def _find_isolation() -> tuple[str, ...]:
    """The words that leave a command without a network; none where that is not allowed."""
    words = ("unshare", "--net", "--map-root-user", "--")
    path = shutil.which(words[0])
    if not path:
        return ()
    probe = [path, *words[1:], "true"]
    is_possible = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return (path, *words[1:]) if is_possible else ()
