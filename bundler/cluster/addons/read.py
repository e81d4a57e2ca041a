"""The add-ons of cluster.yaml: read, checked, and the images in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundler.cluster.addons.checks import check_names, check_namespaces, check_objects
from bundler.cluster.addons.images import Found, find_images
from bundler.cluster.addons.manifests import Render, Text, read_manifests
from bundler.cluster.addons.objects import Object, find_scopes, is_namespaced, read_objects
from bundler.cluster.addons.planned import (
    list_changed_policies,
    list_made_namespaces,
    measure_object,
)
from bundler.cluster.addons.proof import add_found, check_proof, list_stale
from bundler.cluster.components import APPLY_FLAGS, MINORS, minor_of, row_for
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_addons import Addon
from bundler.errors import BundlerError

ANNOTATION_LIMIT = 256 << 10  # bytes of all annotations of an object
SERVER_SIDE = "--server-side"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAddons:
    """The objects of all add-ons, the images in them, and what is wrong."""

    objects: tuple[Object, ...] = ()
    found: tuple[Found, ...] = ()
    problems: tuple[Problem, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)  # file → SHA-256; none with Secrets


def read_addons(
    cluster: Cluster, render: Render, base: Path, *, unproved: bool = False
) -> tuple[Cluster, ReadAddons]:
    """Read every add-on; returns the cluster with the images in them, and the objects.

    Paths in messages are relative to `base`. Nothing is raised: problems have all faults. With
    `unproved`, images that cannot be proved to be carried are warnings.
    """
    if not cluster.addons or minor_of(cluster.kubernetes.version) not in MINORS:
        return cluster, ReadAddons(problems=tuple(check_names(cluster)))
    problems = list(check_names(cluster))
    raw: list[Object] = []
    digests: dict[str, str] = {}
    for index, addon in enumerate(cluster.addons):
        try:
            for text, objects in _read(addon, cluster, render, base):
                raw += objects
                if not any(each.kind == "Secret" for each in objects):
                    digests[f"{text.label} (rendered)" if text.is_rendered else text.label] = (
                        text.digest
                    )
        except BundlerError as error:
            lines = error.message.splitlines()
            if error.hint:
                lines[-1] += f". Fix: {error.hint}"
            problems += [Problem(path=("addons", index, "manifests"), text=line) for line in lines]
    if any(problem.is_error for problem in problems):
        return cluster, ReadAddons(problems=tuple(problems))
    whole_objects = _set_scopes(cluster, raw)
    found = tuple(find_images(whole_objects))
    whole = add_found(cluster, found)
    problems += _check(whole, whole_objects, found)
    for name, fault in check_proof(whole, found):
        path = ("addons", _number(cluster)[name], "manifests")
        problems.append(Problem(path=path, text=fault, is_error=not unproved))
    return whole, ReadAddons(
        objects=whole_objects, found=found, problems=tuple(problems), digests=digests
    )


def _read(
    addon: Addon, cluster: Cluster, render: Render, base: Path
) -> Iterator[tuple[Text, list[Object]]]:
    for text in read_manifests(addon.manifests, cluster, render, base):
        yield text, list(read_objects(addon.name, text, addon.namespace))


def _set_scopes(cluster: Cluster, raw: Sequence[Object]) -> tuple[Object, ...]:
    """The objects, those of kinds that have none without a namespace."""
    scopes = find_scopes(raw)
    given = {addon.name: addon.namespace for addon in cluster.addons}
    return tuple(
        each if is_namespaced(each, scopes, given[each.addon]) else replace(each, namespace="")
        for each in raw
    )


def _check(
    cluster: Cluster, objects: tuple[Object, ...], found: tuple[Found, ...]
) -> Iterator[Problem]:
    index = _number(cluster)
    minor = minor_of(cluster.kubernetes.version)
    made = {namespace for _, namespace in list_made_namespaces(cluster, objects)}
    errors = (
        *check_objects(objects, find_scopes(objects), minor),
        *_check_sizes(objects, minor),
    )
    for addon, text in errors:
        yield Problem(path=("addons", index[addon], "manifests"), text=text)
    for addon, text in check_namespaces(objects, made):
        yield Problem(path=("addons", index[addon], "manifests"), text=text, is_error=False)
    for each in list_changed_policies(objects):
        text = f"{each.describe()}: imagePullPolicy Always becomes IfNotPresent: hosts cannot pull"
        path = ("addons", index[each.addon], "manifests")
        yield Problem(path=path, text=text, is_error=False)
    for number, text in list_stale(cluster, found):
        yield Problem(path=("images_not_needed", number), text=text, is_error=False)


def _number(cluster: Cluster) -> Mapping[str, int]:
    """Add-on → its index in cluster.yaml."""
    return {addon.name: number for number, addon in enumerate(cluster.addons)}


def _check_sizes(objects: Sequence[Object], minor: str) -> Iterator[tuple[str, str]]:
    """Objects that client-side apply cannot keep in an annotation."""
    if SERVER_SIDE in row_for(APPLY_FLAGS, minor):
        return
    for each in objects:
        if measure_object(each) > ANNOTATION_LIMIT:
            text = (
                f"larger than {ANNOTATION_LIMIT >> 10} KiB, which Kubernetes {minor} cannot apply"
            )
            yield each.addon, f"{each.describe()}: {text}"
