"""Options that say how `build` writes its result, and what a dry run says of that."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.bundle.layout import Layout, Media
from bundler.bundle.output import PAYLOAD
from bundler.bundle.shared_payload import inspect_shared
from bundler.bundle.verify import Verdict
from bundler.formats.volumes import joined_name, parse_size
from bundler.render.bundle_manifest import BundleManifest, ContentSource

LayoutOption = Annotated[
    Layout,
    typer.Option(
        "--layout",
        help="`full`: one self-contained tarball per node. `split`: what nodes share goes once into"
        " payload-DIGEST.tar, with small tarballs beside it; on the host, "
        "`install.sh --payload FILE|DIR`.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="SIZE",
        help="Write files larger than this as volumes NAME.001 … with join.sh. In bytes, or with"
        " K, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024): 4.4G fits a DVD, 4095MiB a"
        " FAT32 medium.",
    ),
]
SinceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--since",
        metavar="[NODE=]OLD",
        help="Leave out programs and images that hosts have already: OLD is the directory of the"
        " bundles that they carry, one of these, or NODE=MANIFEST with a host's"
        " /opt/k8s/bundle/MANIFEST. May be repeated.",
    ),
]
PublicOnlyOption = Annotated[
    bool,
    typer.Option(
        "--public-only",
        help="Only what is no secret and needs no state directory, so that a second person can"
        " make the same and compare: `bundler verify DIST --public DIR`.",
    ),
]
ELSEWHERE = {
    ContentSource.BASE: "on the host",
    ContentSource.PAYLOAD: "in the payload",
    ContentSource.STATE: "left out",
}


def make_media(
    layout: Layout, split: str | None, since: list[str] | None, *, public_only: bool
) -> Media:
    """The options as values; ConfigError where a size is none."""
    return Media(
        layout=layout,
        split=parse_size(split) if split is not None else None,
        since=tuple(since or ()),
        public_only=public_only,
    )


def describe_files(
    output: Path, bundles: tuple[str, ...], bases: Mapping[str, BundleManifest], media: Media
) -> list[str]:
    """What a dry run says that a build would write, a line each."""
    volumes = f"; volumes .001 … and join.sh where larger than {media.split} bytes"
    lines = [f"{output}/payload-DIGEST.tar"] if media.layout is Layout.SPLIT else []
    for name in bundles:
        base = bases.get(name)
        change = f", a change to the bundle {base.identity[:16]}" if base else ""
        lines.append(f"{output / name}.tar.gz{change}")
    return [f"write   {line}{volumes if media.split else ''}" for line in lines]


def next_step(media: Media) -> str:
    """What to do with the result of a build."""
    if media.public_only:
        return "Next: compare it with the bundles to be carried: bundler verify DIST --public DIR"
    unpack = "unpack it there" if media.split is None else "./join.sh it, unpack it there"
    payload = " --payload FILE" if media.layout is Layout.SPLIT else ""
    return (
        f"Next: copy each tarball to its host, compare it with SHA256SUMS, {unpack}, and run"
        f" ./install.sh{payload}"
    )


def describe_source(manifest: BundleManifest, path: str) -> str:
    """Where a file is that its bundle does not bring."""
    source = manifest.absent.get(path)
    return f" ({ELSEWHERE[source]})" if source else ""


def is_payload(path: Path) -> bool:
    """Whether this is the name of a payload file, or of one of its volumes."""
    return PAYLOAD.fullmatch(joined_name(path.name)) is not None


def print_payload(path: Path, *, as_json: bool) -> None:
    """What `inspect` says of a payload file; exit code 6 where it has faults."""
    report = inspect_shared(path)
    files = sorted(report.files)
    if as_json:
        facts = {"PAYLOAD": report.identity}
        print(json.dumps({"facts": facts, "files": files, "faults": report.faults}, indent=2))
    else:
        print("\n".join([f"{'payload':20}{report.identity}", *files]))
    for fault in report.faults:
        log.error(fault)
    if report.faults:
        raise typer.Exit(6)
    log.info(f"{len(files)} files, all as their digests say")


def print_verdicts(word: str, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Each verdict as it comes: on stdout where all is well, its faults on stderr."""
    for verdict in verdicts:
        for fault in verdict.faults:
            log.error(fault)
        for note in verdict.notes:
            log.warning(note)
        if not verdict.faults and not verdict.notes:
            more = (f", {n} {ELSEWHERE[source]}" for source, n in sorted(verdict.elsewhere.items()))
            print(f"{word}  {verdict.name}  {verdict.files} files{''.join(more)}")
        yield verdict
