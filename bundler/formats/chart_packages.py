"""Read Helm charts: a package (.tgz) or a folder. Nothing is extracted.

Source: https://helm.sh/docs/topics/charts (the files of a chart, and its charts/ folder).
"""

import gzip
import hashlib
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.errors import ArtifactError, ConfigError
from bundler.formats.bounded_yaml import YamlError, decode, read_manifests
from bundler.formats.tar_safety import BadMemberError, iter_members, open_tar

MAX_CHART = 64 << 20  # bytes of a package; Helm itself refuses more than 100 MiB unpacked
MAX_UNPACKED = 100 << 20
MAX_FILES = 20_000
METADATA = "Chart.yaml"
VALUES = "values.yaml"
SCHEMA = "values.schema.json"
SUBCHARTS = "charts/"
TEMPLATE = re.compile(r"(.*/)?templates/.*\.(ya?ml|tpl|txt)")
SUBCHART = re.compile(r"charts/([^/]+?)(?:-v?\d+\.\d+\.\d+[^/]*\.tgz|/.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPackage:
    """What bundler reads of a chart; Helm reads the rest."""

    name: str
    version: str
    digest: str  # SHA-256: of the package, or of the names and contents of a folder's files
    annotations: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)  # of values.yaml
    has_schema: bool = False
    subcharts: frozenset[str] = frozenset()
    templates: Mapping[str, str] = field(default_factory=dict)  # `web/templates/a.yaml` → text


def read_chart(path: Path, label: str) -> ChartPackage:
    """Read a package or a folder; `label` is for messages.

    Raises ArtifactError for a package that is no chart, ConfigError for a folder or file that
    cannot be read.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        files, digest = _read_folder(path, label) if is_folder else _read_package(path, label)
    except OSError as error:
        raise ConfigError(f"{label}: {error.strerror or error}") from error
    return _make(files, digest, label)


def _make(files: Mapping[str, bytes], digest: str, label: str) -> ChartPackage:
    if METADATA not in files:
        raise ArtifactError(f"{label}: has no {METADATA}: it is no chart")
    metadata = _read_mapping(files[METADATA], f"{label}: {METADATA}")
    name, version = metadata.get("name"), metadata.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        raise ArtifactError(f"{label}: {METADATA} must have a name and a version, both text")
    annotations = metadata.get("annotations")
    given = annotations.items() if isinstance(annotations, dict) else ()
    listed = metadata.get("dependencies")
    dependencies = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    return ChartPackage(
        name=name,
        version=version,
        digest=digest,
        annotations={key: value for key, value in given if isinstance(value, str)},
        values=_read_mapping(files.get(VALUES, b""), f"{label}: {VALUES}"),
        has_schema=SCHEMA in files,
        subcharts=frozenset(
            (
                *(found[1] for found in map(SUBCHART.fullmatch, files) if found),
                *(str(each.get(key)) for each in dependencies for key in ("name", "alias")),
            )
        ),
        templates={
            f"{name}/{path}": content.decode(errors="replace")
            for path, content in files.items()
            if TEMPLATE.fullmatch(path)
        },
    )


def _read_mapping(content: bytes, label: str) -> dict[str, Any]:
    """The only document of a YAML file; an empty file is an empty mapping."""
    try:
        documents = [each.data for each in read_manifests(decode(content))]
    except YamlError as error:
        raise ArtifactError(f"{label}:{error.faults[0]}") from error
    data = documents[0] if documents else None
    if len(documents) > 1 or not isinstance(data, dict | None):
        raise ArtifactError(f"{label}: must be one mapping")
    return data or {}


def _read_package(path: Path, label: str) -> tuple[dict[str, bytes], str]:
    """The files that bundler reads, by their paths below the chart's folder."""
    size = path.stat().st_size
    if size > MAX_CHART:
        raise ArtifactError(f"{label}: larger than {MAX_CHART >> 20} MiB, and no chart is")
    content = path.read_bytes()
    files: dict[str, bytes] = {}
    tops: set[str] = set()
    try:
        with open_tar(path, "r:gz") as tar:
            for member in iter_members(tar, MAX_UNPACKED):
                top, _, name = member.name.removeprefix("./").partition("/")
                tops.add(top)
                if not name or member.isdir():
                    continue
                if not member.isreg():
                    raise BadMemberError(f"{member.name!r} is a link: Helm packages have none")
                file = tar.extractfile(member) if _is_read(name) else None
                files[name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArtifactError(
            f"{label}: not a package of a chart: {error}", hint="make it with: helm package FOLDER"
        ) from error
    if len(tops) != 1:
        raise ArtifactError(f"{label}: a package has one folder, and this one has {len(tops)}")
    return files, hashlib.sha256(content).hexdigest()


def _read_folder(folder: Path, label: str) -> tuple[dict[str, bytes], str]:
    files: dict[str, bytes] = {}
    lines: list[str] = []
    total = 0
    for path in _walk(folder, label):
        name = path.relative_to(folder).as_posix()
        content = _read_file(path, label)
        total += len(content)
        if total > MAX_UNPACKED or len(lines) >= MAX_FILES:
            raise ConfigError(
                f"{label}: more than {MAX_UNPACKED >> 20} MiB or {MAX_FILES} files: it is no chart"
            )
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        files[name] = content if _is_read(name) else b""
    return files, hashlib.sha256("".join(lines).encode()).hexdigest()


def _walk(folder: Path, label: str) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            raise ConfigError(f"{label}: {entry} is a link: copy what it leads to")
        if entry.is_dir():
            yield from _walk(entry, label)
        else:
            yield entry


def _read_file(path: Path, label: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{label}: {path} is not a file")
        return file.read(MAX_UNPACKED + 1)


def _is_read(name: str) -> bool:
    return name in {METADATA, VALUES} or TEMPLATE.fullmatch(name) is not None
