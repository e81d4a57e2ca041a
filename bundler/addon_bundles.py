"""`bundler addon bundle`: a build of deltas in which nothing but one add-on may change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.bundle.delta_base import load_bases
from bundler.bundle.front import BundleFront
from bundler.bundle.layout import Media
from bundler.errors import ConfigError
from bundler.formats.volumes import Written
from bundler.pipeline import build_project
from bundler.project import Inputs, Project, load
from bundler.render.tree import Tree
from bundler.upgrade.addon_change import AddonChange, choose_images, compare_node

SHOWN_PATHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AddonBundles:
    """What `build` has written."""

    files: tuple[Written, ...]
    changes: tuple[AddonChange, ...]  # of each node that has a bundle
    unchanged: tuple[str, ...]  # nodes without one


def build(
    inputs: Inputs, addon: str, output: Path, *, signing_key: Path | None, media: Media
) -> AddonBundles:
    """Build the bundles that bring the add-on and its images to the hosts of `media.since`.

    Raises ConfigError if anything else differs from the bundles there.
    """
    project = load(inputs)
    _check_addon(project, addon)
    bases = load_bases(media.since, project.cluster)
    _check_bases(project, bases, output, media.since)
    images = choose_images(project.cluster, project.image_uses, addon)
    changes: list[AddonChange] = []

    def choose_nodes(trees: Iterator[tuple[str, Tree]]) -> frozenset[str]:
        changes.extend(compare_node(addon, images, node, tree, bases[node]) for node, tree in trees)
        _check_nothing_else(addon, changes, media.since, output)
        return frozenset(change.node for change in changes if change.needs_bundle)

    files = build_project(
        project, output, signing_key=signing_key, media=media, choose_nodes=choose_nodes
    )
    return AddonBundles(
        files=files,
        changes=tuple(change for change in changes if change.needs_bundle),
        unchanged=tuple(change.node for change in changes if not change.needs_bundle),
    )


def _check_addon(project: Project, addon: str) -> None:
    names = [each.name for each in project.cluster.addons]
    if addon not in names:
        raise ConfigError(
            f"{project.inputs.description} has no add-on {addon}"
            + (f"; it has {', '.join(names)}" if names else ""),
            hint="add it to `addons`; an add-on that left cluster.yaml is deleted on the cluster by"
            " the bundles of: bundler build --since OLD -o DIR",
        )


def _check_bases(
    project: Project, bases: Mapping[str, BundleFront], output: Path, since: Sequence[str]
) -> None:
    """Check that each node has an installed bundle, which the new one does not replace."""
    missing = [node.name for node in project.plan.nodes if node.name not in bases]
    if missing:
        raise ConfigError(
            f"--since {' '.join(since)}: no bundle of {', '.join(missing)}, so what changes there"
            " is not known",
            hint="give --since for every node; for a node that is not installed yet: bundler build"
            " --since OLD -o DIR",
        )
    if output.resolve() in {front.path.parent.resolve() for front in bases.values()}:
        raise ConfigError(
            f"-o {output} has the installed bundles: the new ones would replace them",
            hint="choose another directory with -o",
        )


def _check_nothing_else(
    addon: str, changes: Sequence[AddonChange], since: Sequence[str], output: Path
) -> None:
    """Raise ConfigError with every change that does not belong to the add-on, and its nodes."""
    nodes: dict[str, list[str]] = {}
    for change in changes:
        for line in change.others:
            nodes.setdefault(line, []).append(change.node)
    if nodes:
        options = " ".join(f"--since {each}" for each in since)
        raise ConfigError(
            f"more has changed since {' '.join(since)} than the add-on {addon} and its images:\n"
            + "\n".join(_list_lines(nodes)),
            hint="undo these changes of cluster.yaml, its files, the lock or bundler; or carry all"
            f" of them with: bundler build {options} -o {output}",
        )


def _list_lines(nodes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for line, names in list(nodes.items())[:SHOWN_PATHS]:
        yield f"    {line} ({', '.join(names)})"
    if len(nodes) > SHOWN_PATHS:
        yield f"    and {len(nodes) - SHOWN_PATHS} more files"
