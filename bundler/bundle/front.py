"""The first files of a bundle: its node, its manifest, and the state that it was made with."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundler.errors import OutputError
from bundler.formats.bundle_archives import explain_damage, read_tar_gz, read_text
from bundler.formats.shell_settings import read_settings
from bundler.formats.volumes import joined_name
from bundler.render.bundle_manifest import BundleManifest, parse_manifest
from bundler.render.tree import MANIFEST
from bundler.state.state_id import STATE_ID

NODE_ENV = "node.env"
STATE_ENV = "state.env"
FIRST_KEY = "rootfs/etc/kubernetes/pki/sa.pub"
"""Its digest is the state's id in a control plane's bundle from before state.env had the id."""

TAR = (".tar.gz", ".tar.gz.001")
TARBALL = re.compile(r"(?<!\.public)\.tar\.gz$")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFront:
    """What a bundle says about itself before its large files."""

    path: Path
    manifest: BundleManifest = field(
        default_factory=lambda: BundleManifest(entries=(), public_identity="")
    )
    cluster: str = ""
    node: str = ""
    state_id: str = ""  # empty if the bundle does not say it
    not_before: int = 0  # when its newest certificate became valid, in seconds


def read_front(path: Path) -> BundleFront:
    """Read the front of a tarball or its volumes; raises OutputError if it is not a bundle."""
    texts: dict[str, bytes] = {}
    with explain_damage(path):
        for name, _, content in read_tar_gz(path):
            if name in {NODE_ENV, STATE_ENV, MANIFEST}:
                texts[name] = read_text(content)
            if name == MANIFEST:
                return _make_front(path, texts)
    raise OutputError(f"{path}: not a bundle: {MANIFEST} is missing")


def read_unpacked_front(directory: Path) -> BundleFront:
    """Read the front of an unpacked bundle, or of a rendered tree."""
    with explain_damage(directory):
        paths = (directory / name for name in (NODE_ENV, STATE_ENV, MANIFEST))
        return _make_front(directory, {p.name: p.read_bytes() for p in paths if p.is_file()})


def read_small_files(path: Path, names: Collection[str]) -> Mapping[str, bytes]:
    """Read small files of a bundle, packed or not; those that cannot be found are left out."""
    with explain_damage(path):
        if path.is_dir():
            return {n: (path / n).read_bytes() for n in names if (path / n).is_file()}
        found: dict[str, bytes] = {}
        for name, _, content in read_tar_gz(path):
            if name in names:
                found[name] = read_text(content)
            if len(found) == len(names):
                break
        return found


def list_fronts(directory: Path, cluster: str) -> Iterator[BundleFront]:
    """Read the front of every bundle of the cluster in a directory: packed, unpacked or rendered.

    A tarball that cannot be read has a front without facts. Left out are directories that are no
    bundles, and bundles without secrets.
    """
    with explain_damage(directory):
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    for name in sorted({joined_name(name) for name in names}):
        path = directory / name
        if (path / MANIFEST).is_file():
            front = _try(read_unpacked_front, path)
            if front.cluster == cluster:
                yield front
        elif name.startswith(f"{cluster}-") and TARBALL.search(name):
            yield _try(read_front, path)


def check_no_other_cluster(directory: Path, cluster: str) -> None:
    """Raise OutputError if the directory has a bundle of another cluster."""
    with explain_damage(directory):
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    for name in sorted({joined_name(name) for name in names if name.endswith(TAR)}):
        front = _try(read_front, directory / name)
        if front.cluster not in {"", cluster}:
            raise OutputError(
                f"{directory} has bundles of the cluster {front.cluster}: a build of {cluster}"
                " there would leave a mixture",
                hint="choose another directory with -o, or move that one away",
            )


def find_state_id(state_env: str, manifest: BundleManifest) -> str:
    """The id of the state that made a bundle; empty if the bundle does not say it.

    Raises ValueError if it is not an id.
    """
    recorded = read_settings(state_env).get("STATE_ID")
    if recorded is None:
        return next((entry.sha256 for entry in manifest.entries if entry.path == FIRST_KEY), "")
    if not STATE_ID.fullmatch(recorded):
        raise ValueError(f"{STATE_ENV}: STATE_ID is not 64 hexadecimal digits")
    return recorded


def _try(read: Callable[[Path], BundleFront], path: Path) -> BundleFront:
    try:
        return read(path)
    except OutputError:
        return BundleFront(path=path)


def _make_front(path: Path, texts: dict[str, bytes]) -> BundleFront:
    if MANIFEST not in texts:
        raise OutputError(f"{path}: not a bundle: {MANIFEST} is missing")
    manifest = parse_manifest(texts[MANIFEST], f"{path}: {MANIFEST}")
    try:
        node_env, state_env = (texts.get(n, b"").decode() for n in (NODE_ENV, STATE_ENV))
        facts, state = read_settings(node_env), read_settings(state_env)
        return BundleFront(
            path=path,
            manifest=manifest,
            cluster=facts.get("CLUSTER", ""),
            node=facts.get("NODE", ""),
            state_id=find_state_id(state_env, manifest) if STATE_ENV in texts else "",
            not_before=int(state.get("NOT_BEFORE", "0")),
        )
    except ValueError as error:
        raise OutputError(f"{path}: {error}") from error
