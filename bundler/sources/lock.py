"""The lock, cluster.lock.yaml: its format, and how it is read and written.

It has one entry for each upstream artifact, image and OS package: URL, size, digest, where the
digest comes from, and when it was locked. A build with a lock uses nothing else.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bundler.errors import ArtifactError, ConfigError
from bundler.files import write_atomically
from bundler.formats.bounded_yaml import YamlError, decode, read_bytes, read_document
from bundler.formats.safe_parse import check_url
from bundler.paths import STDIN
from bundler.urls import hide_places, show_url

HEADING = """\
# The exact files that `bundler build` uses. Written by `bundler lock`; keep it next to cluster.yaml
# in version control. `origin` is the trust source of a digest; first-use means nobody checked it.
"""


class LockKind(StrEnum):
    """The kind of an entry, which decides how it is fetched."""

    ARTIFACT = "artifact"
    CHART = "chart"
    IMAGE = "image"
    PACKAGE = "package"


class TrustSource(StrEnum):
    """The trust source of a digest, the best first."""

    UPSTREAM_SIGNATURE = "upstream-signature"
    CATALOG = "catalog"
    UPSTREAM_CHECKSUM = "upstream-checksum"
    USER = "user"
    FIRST_USE = "first-use"


class LockEntry(BaseModel):
    """One file that the builder fetches.

    `name` is the component (`etcd`), the normalized reference of the image, or the name of the
    package; it is unique together with `kind` and `arch`, and for packages the distribution. The
    digest of an image is that of its manifest for the architecture; `index` is the digest of the
    multi-architecture index, if any. A chart has the name of its add-on, and `repository` is where
    cluster.yaml finds it: REPO/NAME. Its digest is that of the package; of a registry, `index` is
    the digest of the manifest.
    `url` has no user, password and query: the lock is in version control, and such a query ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: LockKind
    name: str
    version: str
    arch: str  # amd64 | arm64; all for packages that fit every architecture
    url: Annotated[str, AfterValidator(check_url), AfterValidator(show_url)]
    size: Annotated[int, Field(ge=0)]  # bytes; an image: manifest, configuration and layers
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]
    index: Annotated[str | None, Field(pattern=r"^sha256:[0-9a-f]{64}$")] = None
    repository: str | None = None
    origin: TrustSource
    evidence: Annotated[str, AfterValidator(hide_places)]  # what confirms the digest
    sources: Annotated[int, Field(ge=1)] | None = None  # public sources that state a built-in pin
    trust: str | None = None  # the signer of `upstream_keys` when the signature was checked
    locked: datetime  # UTC

    @property
    def key(self) -> tuple[LockKind, str, str, str]:
        """What is unique for each entry."""
        return self.kind, self.name, self.arch, self.release

    @property
    def release(self) -> str:
        """Of a package: its distribution, as `packages.os` has it; else empty."""
        return self.evidence.partition(":")[0] if self.kind is LockKind.PACKAGE else ""

    def explain_drift(self, version: str, url: str, digest: str) -> str:
        """How the entry differs from what is needed now; empty if it does not.

        An empty `digest` means that none is known.
        """
        if self.version != version:
            return f"is locked as {self.version}, but {version} is needed now"
        if self.url != (shown := show_url(url)):
            return f"is locked from {self.url}, but its URL is now {shown}"
        if digest and self.digest != digest:
            return f"is locked as {self.digest}, but its pin is now {digest}"
        return ""

    def explain_trust(self, trust: str) -> str:
        """Why the entry does not prove that `trust` signed the file; empty if it does.

        An empty `trust` means that the file has no upstream key.
        """
        if trust and self.origin is not TrustSource.UPSTREAM_SIGNATURE:
            return f"is locked by {self.origin}, but upstream_keys requires a signature"
        if trust and self.trust != trust:
            was = self.trust or "an unknown key"
            return f"was checked with {was}, but upstream_keys now requires {trust}"
        return ""


class Lock(BaseModel):
    """The complete file.

    `state` is the id of the state directory that the first build with the lock used. `base` is
    `packages.base` when the packages were resolved: dependencies in these packages have
    no entries. None if the cluster has no `packages`. `parts` are the files that cluster.yaml names
    (`include`, `nodes_from`), as seen from its directory, each with its SHA-256.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lock: Literal[1] = 1  # the format's version
    cluster: str
    state: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    base: tuple[str, ...] | None = None
    parts: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] | None = None
    entries: tuple[LockEntry, ...]

    def of(self, kind: LockKind) -> Iterator[LockEntry]:
        """The entries of one kind."""
        return (entry for entry in self.entries if entry.kind is kind)

    def find(self, kind: LockKind, name: str, arch: str) -> LockEntry | None:
        """The entry of one file, or None."""
        return next((e for e in self.entries if e.key[:3] == (kind, name, arch)), None)


def read_lock(path: Path) -> Lock:
    """Read a lock; ConfigError if it is missing or invalid."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", hint="create it with: bundler lock"
        ) from error
    return parse_lock(content, path)


def parse_lock(content: bytes, path: Path) -> Lock:
    """Parse a lock; raises ConfigError that names `path`."""
    try:
        lock = Lock.model_validate(read_document(decode(content)).data)
    except ValidationError as error:
        faults = "\n".join(
            f"{path}: {'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()
        )
        raise ConfigError(faults, hint=_HINT) from error
    except YamlError as error:
        faults = "\n".join(f"{path}:{fault}" for fault in error.faults)
        raise ConfigError(faults, hint=_HINT) from error
    keys = [entry.key for entry in lock.entries]
    if twice := {key for key in keys if keys.count(key) > 1}:
        names = ", ".join(" ".join(key) for key in sorted(twice))
        raise ConfigError(f"{path}: more than one entry for {names}", hint=_HINT)
    return lock


def write_lock(lock: Lock, path: Path) -> None:
    """Write a lock, if the file is not the same already."""
    content = format_lock(lock)
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content, mode=0o644)


def format_lock(lock: Lock) -> bytes:
    """The lock as a file, sorted, so that a diff shows only what changed."""
    entries = sorted(lock.entries, key=lambda entry: entry.key)
    data = lock.model_copy(update={"entries": tuple(entries)}).model_dump(
        mode="json", exclude_none=True
    )
    return (HEADING + yaml.safe_dump(data, sort_keys=False, width=4096)).encode()


_HINT = "restore it from version control, or create it again with: bundler lock"


def lock_path(config: Path) -> Path:
    """`cluster.lock.yaml` next to `cluster.yaml`; in the working directory for standard input."""
    if config == STDIN:
        return Path("cluster.lock.yaml")
    return config.with_suffix(".lock.yaml")


def first_uses(lock: Lock) -> tuple[LockEntry, ...]:
    """Entries whose digest was only seen on first use: nobody checked it."""
    return tuple(entry for entry in lock.entries if entry.origin is TrustSource.FIRST_USE)


def refuse_first_uses(lock: Lock) -> None:
    """Raise an ArtifactError that lists every entry with the trust source first-use."""
    if found := first_uses(lock):
        lines = (
            f"{entry.name} {entry.version} ({entry.arch}): its digest was only seen on first use"
            for entry in found
        )
        raise ArtifactError(
            "\n".join(lines),
            hint="take the digest from upstream over a connection that you trust and add it to"
            " cluster.yaml, under `artifacts` (for an image, to its ref: NAME:TAG@sha256:…); then"
            " run bundler lock; or omit --strict",
        )
