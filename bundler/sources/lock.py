"""cluster.lock.yaml: what exactly crosses the gate, and on whose word.

One entry a file: each upstream artifact, image and OS package with its URL, size and digest, where
the digest came from, and when. A build that has a lock uses nothing else.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bundler.errors import ConfigError
from bundler.files import write_atomically
from bundler.formats.safe_parse import check_url, read_yaml

HEADING = """\
# What `bundler build` takes, byte for byte. Written by `bundler lock`; keep it beside cluster.yaml,
# under version control. `origin` says on whose word a digest is believed; first-use is nobody's.
"""


class LockKind(StrEnum):
    """What an entry is, which is also who knows how to fetch it."""

    ARTIFACT = "artifact"
    IMAGE = "image"
    PACKAGE = "package"


class TrustSource(StrEnum):
    """On whose word a digest is believed, the best first."""

    UPSTREAM_SIGNATURE = "upstream-signature"
    CATALOG = "catalog"
    UPSTREAM_CHECKSUM = "upstream-checksum"
    USER = "user"
    FIRST_USE = "first-use"


class LockEntry(BaseModel):
    """One file that the builder fetches.

    `name` is the component (`etcd`), the image's normalized reference, or the package's name; it is
    unique together with `kind` and `arch`. An image's digest is its manifest's for that machine;
    `index` is that of the index of all machines by which the manifest was chosen, if there was one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: LockKind
    name: str
    version: str
    arch: str  # amd64 | arm64; a package for every machine: all
    url: Annotated[str, AfterValidator(check_url)]
    size: Annotated[int, Field(ge=0)]  # bytes; of an image: its manifest, configuration and layers
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]
    index: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = None
    origin: TrustSource
    evidence: str  # the document or key that says so
    trust: str | None = None  # whom `upstream_keys` believed when the signature was checked
    locked: datetime  # when, UTC

    @property
    def key(self) -> tuple[LockKind, str, str]:
        """What tells entries apart."""
        return self.kind, self.name, self.arch

    def explain_drift(self, version: str, url: str, digest: str) -> str:
        """How this differs from what is needed now, in words; empty where it does not.

        An empty `digest` is one that nobody has stated.
        """
        if self.version != version:
            return f"is locked as {self.version}, and {version} is needed now"
        if self.url != url:
            return f"is locked from {self.url}, and would now come from {url}"
        if digest and self.digest != digest:
            return f"is locked as {self.digest}, and its pin now says {digest}"
        return ""

    def explain_trust(self, trust: str) -> str:
        """Why nobody has checked that whom `trust` says signed it; empty where that was checked.

        An empty `trust` is that of a file without an upstream key.
        """
        if trust and self.origin is not TrustSource.UPSTREAM_SIGNATURE:
            return f"is locked on the word of {self.origin}, and upstream_keys says who signs it"
        if trust and self.trust != trust:
            was = self.trust or "a key that it does not name"
            return f"was checked against {was}, and upstream_keys now says {trust}"
        return ""


class Lock(BaseModel):
    """The whole file.

    `base` is `packages.base` as it was when packages were resolved: what they need of these
    packages is not among the entries. None where the cluster has no `packages`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lock: Literal[1] = 1  # the format's version
    cluster: str
    base: tuple[str, ...] | None = None
    entries: tuple[LockEntry, ...]

    def of(self, kind: LockKind) -> Iterator[LockEntry]:
        """The entries of one kind."""
        return (entry for entry in self.entries if entry.kind is kind)

    def find(self, kind: LockKind, name: str, arch: str) -> LockEntry | None:
        """The entry of one file, or None."""
        return next((e for e in self.entries if e.key == (kind, name, arch)), None)


def read_lock(path: Path) -> Lock:
    """Read a lock file; raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="make one with: bundler lock"
        ) from error
    return parse_lock(content, path)


def parse_lock(content: bytes, path: Path) -> Lock:
    """Parse a lock; raises ConfigError that names `path`."""
    try:
        lock = Lock.model_validate(read_yaml(content.decode()))
    except ValidationError as error:
        faults = "\n".join(
            f"{path}: {'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()
        )
        raise ConfigError(faults, hint=_HINT) from error
    except ValueError as error:
        raise ConfigError(f"{path}: no YAML: {error}", hint=_HINT) from error
    keys = [entry.key for entry in lock.entries]
    if twice := {key for key in keys if keys.count(key) > 1}:
        names = ", ".join(" ".join(key) for key in sorted(twice))
        raise ConfigError(f"{path}: more than one entry for {names}", hint=_HINT)
    return lock


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock, sorted, so that a version control system shows what changed and no more."""
    entries = sorted(lock.entries, key=lambda entry: entry.key)
    data = lock.model_copy(update={"entries": tuple(entries)}).model_dump(
        mode="json", exclude_none=True
    )
    text = yaml.safe_dump(data, sort_keys=False, width=4096)
    write_atomically(path, (HEADING + text).encode(), mode=0o644)


_HINT = "take it from version control again, or make it anew with: bundler lock"
