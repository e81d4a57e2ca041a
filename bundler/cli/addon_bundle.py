"""`bundler addon bundle`: one add-on and its images, for a cluster that exists."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import addon_bundles, log
from bundler.addon_bundles import AddonBundles
from bundler.bundle.layout import Layout
from bundler.cli.complete import complete_addon
from bundler.cli.json_output import Value, print_json
from bundler.cli.media import LayoutOption, SplitOption, make_media, next_step
from bundler.cli.options import Json, SigningKey, shown, with_inputs
from bundler.project import Inputs

AddonName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The add-on, as in cluster.yaml.", autocompletion=complete_addon
    ),
]
Installed = Annotated[
    list[str],
    typer.Option(
        "--since",
        metavar="[NODE=]OLD",
        help="What the hosts have installed: the directory of their bundles, or one bundle. May be"
        " repeated; for each node the last one that has its bundle counts, such as an earlier"
        " add-on bundle.",
    ),
]


@with_inputs()
def bundle_command(
    inputs: Inputs,
    name: AddonName,
    since: Installed,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The directory for the new bundles.")
    ],
    sign: SigningKey = None,
    layout: LayoutOption = Layout.FULL,
    split: SplitOption = None,
    as_json: Json = False,
) -> None:
    """Bundle one add-on and its images for a cluster that exists.

    1. bundler addon bundle web --since dist/ -o web/ --sign release.key: builds small bundles,
    deltas to those in dist/. Control planes get the add-on, workers its new images; a host for
    which nothing changes gets no bundle. All programs and other images stay as they are.

    2. Copy each bundle to its host and run install.sh, as web/RUNBOOK.md says. It is the next
    generation of the host: install.sh --plan, --rollback and verify.sh work as with other bundles.

    The build compares every file of every node with the bundles of --since. If anything else has
    changed (cluster.yaml, the lock, the state directory, bundler itself), it names the files and
    builds nothing: `bundler build --since` carries all changes. Tokens that ended unused are
    replaced, as in every build. A host that has another bundle than that of --since refuses the new
    one.

    A later full build from the same cluster.yaml has the same add-on, and changes nothing in it.

    Prints one line per file: digest, size, path.
    """
    media = make_media(layout, split, since, public_only=False, seal=None, seal_to=None)
    built = addon_bundles.build(inputs, name, output, signing_key=sign, media=media)
    for line in _describe(built, name):
        log.info(line)
    if as_json:
        print_json("addon-bundle", addon=name, output=str(output), **_as_data(built))
        return
    for file in built.files:
        log.result(f"{file.sha256}  {file.size:>12}  {shown(file.path)}")
    if built.files:
        log.info(next_step(media, output))


def _describe(built: AddonBundles, name: str) -> list[str]:
    if not built.changes:
        return [f"the bundles of --since have the add-on {name} as it is: nothing to build"]
    lines = []
    for change in built.changes:
        words = [f"add-on {name}"] if change.files else []
        words += [_count(len(change.images))] if change.images else []
        words += [f"{image} goes" for image in change.images_removed]
        lines.append(f"  {change.node}: {', '.join(words)}")
    if built.unchanged:
        lines.append(f"  no bundle for {', '.join(built.unchanged)}: nothing of it changes there")
    return lines


def _count(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'} to load"


def _as_data(built: AddonBundles) -> dict[str, Value]:
    return {
        "nodes": [
            {
                "name": change.node,
                "addon": bool(change.files),
                "images": list(change.images),
                "images_removed": list(change.images_removed),
            }
            for change in built.changes
        ],
        "unchanged": list(built.unchanged),
        "files": [
            {"path": str(file.path), "sha256": file.sha256, "size": file.size}
            for file in built.files
        ],
    }
