"""`bundler build` and `bundler render`."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import log, pipeline
from bundler.bundle.layout import Layout, Media
from bundler.cli.json_output import Value, print_json
from bundler.cli.media import (
    LayoutOption,
    PublicOnlyOption,
    SealOption,
    SealToOption,
    SinceOption,
    SplitOption,
    describe_files,
    make_media,
    next_step,
)
from bundler.cli.options import Json, shown, with_inputs
from bundler.project import Inputs
from bundler.urls import show_url


@with_inputs()
def build_command(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="The directory to write.")] = Path(
        "dist"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign", help="Sign with this private key (see bundler keygen).", metavar="KEY"
        ),
    ] = None,
    layout: LayoutOption = Layout.FULL,
    split: SplitOption = None,
    since: SinceOption = None,
    public_only: PublicOnlyOption = False,
    seal: SealOption = None,
    seal_to: SealToOption = None,
    as_json: Json = False,
) -> None:
    """Build one tarball per node, and SHA256SUMS.

    Upstream files come from the cache, then from each --mirror, then from upstream. Each must match
    its digest: the one in cluster.lock.yaml if that file exists (see bundler lock), otherwise the
    one in cluster.yaml, otherwise the built-in one.

    Keys and certificates are created once, in the state directory, and then reused. The same inputs
    give the same bytes. The lock and every bundle record the state's id. Where they name another
    state than the one that is here, or none is here, the build stops (exit code 4): a new state is
    another cluster.

    Prints one line per file: digest, size, path.
    """
    media = make_media(layout, split, since, public_only=public_only, seal=seal, seal_to=seal_to)
    if dry_run:
        _print_preview(inputs, output, media)
        return
    written = pipeline.build(inputs, output, signing_key=sign, media=media)
    if as_json:
        files: list[Value] = [
            {"path": str(file.path), "sha256": file.sha256, "size": file.size} for file in written
        ]
        print_json("build", output=str(output), files=files)
    else:
        for file in written:
            log.result(f"{file.sha256}  {file.size:>12}  {shown(file.path)}")
    log.info(next_step(media, output))


@with_inputs("strict")
def render_command(
    inputs: Inputs,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The directory to write, with one tree per node.")
    ],
    text_only: Annotated[
        bool,
        typer.Option("--text-only", help="Leave out binaries and images; downloads nothing."),
    ] = False,
) -> None:
    """Write the contents of the bundles as plain files, for review and diff.

    The trees contain private keys, as the bundles do. Files with a secret have mode 0600.

    Prints the directory of each tree.
    """
    for directory in pipeline.render(inputs, output, text_only=text_only):
        log.result(str(directory))


def _print_preview(inputs: Inputs, output: Path, media: Media) -> None:
    preview = pipeline.preview(inputs, output, media)
    for artifact, is_cached in preview.artifacts:
        log.result(f"{'cached' if is_cached else 'fetch '}  {show_url(artifact.url)}")
        log.result(f"        {artifact.algorithm} {artifact.digest} ({artifact.source})")
    for release in preview.cluster.list_packages():
        log.result(f"package OS packages for {release}: from the lock, or resolved by the build")
    for image in preview.cluster.images:
        log.result(f"image   {image.ref}  {image.file or 'from its registry'}")
    if preview.state:
        log.result(f"{'reuse ' if preview.state.is_dir() else 'create'}  {preview.state}")
    for line in describe_files(
        output, preview.bundles, preview.bases, media, is_sealed=preview.is_sealed
    ):
        log.result(line)
