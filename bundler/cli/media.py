"""The options for the form of the bundles, and the messages about them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.bundle.layout import Layout, Media
from bundler.bundle.output import PAYLOAD, UNSEAL
from bundler.bundle.verify import Verdict
from bundler.cli.complete import complete_node_value
from bundler.formats.volumes import joined_name, parse_size
from bundler.render.bundle_manifest import BundleManifest, ContentSource

LayoutOption = Annotated[
    Layout,
    typer.Option(
        "--layout",
        help="`full`: each tarball is complete. `split`: small tarballs, and one"
        " payload-DIGEST.tar with the files that nodes share; on the host: `install.sh --payload"
        " FILE|DIR`.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="SIZE",
        help="Split larger files into volumes NAME.001, NAME.002 …, with join.sh. In bytes, or with"
        " K, M, G (powers of 1000) or KiB, MiB, GiB (powers of 1024): 4.4G fits on a DVD, 4095MiB"
        " on FAT32.",
    ),
]
SinceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--since",
        metavar="[NODE=]OLD",
        help="Build deltas: leave out programs and images that the hosts already have. OLD is the"
        " directory of their bundles, or one bundle, or NODE=MANIFEST with the file"
        " /opt/k8s/bundle/MANIFEST of that host. May be repeated.",
    ),
]
PublicOnlyOption = Annotated[
    bool,
    typer.Option(
        "--public-only",
        help="Build only the files that are not secret. This needs no state directory, so that a"
        " second person can build and compare them: `bundler verify DIST --public DIR`.",
    ),
]
SealOption = Annotated[
    bool | None,
    typer.Option(
        "--seal/--no-seal",
        help="Encrypt the keys and tokens of each tarball for its host alone. The unseal codes are"
        " in UNSEAL.tsv, which must travel another way; install.sh asks for the code. Default: as"
        " the bundles of --since.",
        show_default=False,
    ),
]
SealToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--seal-to",
        metavar="NODE=CERT",
        help="Seal the bundle of NODE to this certificate of the host (RSA), instead of to a code:"
        " `install.sh --unseal-key FILE`. All other nodes are sealed with a code. May be repeated.",
        autocompletion=complete_node_value,
    ),
]
WHERE = {
    ContentSource.BASE: "on the host",
    ContentSource.PAYLOAD: "in the payload",
    ContentSource.SEAL: "sealed",
    ContentSource.STATE: "left out",
}
"""Where a file is that its bundle does not contain."""


def make_media(
    layout: Layout,
    split: str | None,
    since: list[str] | None,
    *,
    public_only: bool,
    seal: bool | None,
    seal_to: list[str] | None,
) -> Media:
    """Make the value of these options; raises ConfigError for a wrong size."""
    return Media(
        layout=layout,
        split=parse_size(split) if split is not None else None,
        since=tuple(since or ()),
        public_only=public_only,
        seal=seal,
        seal_to=tuple(seal_to or ()),
    )


def describe_files(
    output: Path,
    bundles: tuple[str, ...],
    bases: Mapping[str, BundleManifest],
    media: Media,
    *,
    is_sealed: bool,
) -> list[str]:
    """List the files that a build would write, one line each."""
    sealed = ", sealed" if is_sealed else ""
    volumes = f"; in volumes .001 … with join.sh if larger than {media.split} bytes"
    lines = [f"{output}/payload-DIGEST.tar"] if media.layout is Layout.SPLIT else []
    for name in bundles:
        base = bases.get(name)
        delta = f", a delta to the bundle {base.public_identity[:16]}" if base else ""
        lines.append(f"{output / name}.tar.gz{sealed}{delta}")
    return [f"write   {line}{volumes if media.split else ''}" for line in lines]


def next_step(media: Media, output: Path) -> str:
    """Say what to do with the result of a build."""
    if media.public_only:
        return "Next: compare it with the bundles for the hosts: bundler verify DIST --public DIR"
    unpack = "join it with ./join.sh, unpack it there" if media.split else "unpack it there"
    payload = " --payload FILE" if media.layout is Layout.SPLIT else ""
    codes = output / UNSEAL
    seals = f"{codes} opens the bundles: never copy it to their media. " if codes.is_file() else ""
    return (
        f"{seals}Next: copy each tarball to its host, compare it with SHA256SUMS, {unpack}, and run"
        f" ./install.sh{payload}"
    )


def describe_source(manifest: BundleManifest, path: str) -> str:
    """Say where a file is that its bundle does not contain; empty if the bundle contains it."""
    source = manifest.absent.get(path)
    return f" ({WHERE[source]})" if source else ""


def is_payload(path: Path) -> bool:
    """Whether this is the name of a payload file, or of one of its volumes."""
    return PAYLOAD.fullmatch(joined_name(path.name)) is not None


def print_verdicts(word: str, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Print each verdict as soon as it is known: success on stdout, problems on stderr."""
    for verdict in verdicts:
        for fault in verdict.faults:
            log.error(fault)
        for note in verdict.notes:
            log.warning(note)
        if not verdict.faults and not verdict.notes:
            more = (f", {n} {WHERE[source]}" for source, n in sorted(verdict.elsewhere.items()))
            log.result(f"{word}  {verdict.name}  {verdict.files} files{''.join(more)}")
        yield verdict
