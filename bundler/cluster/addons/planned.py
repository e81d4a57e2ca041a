"""What hosts apply: the add-ons in order, each as files and as a list of its objects."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from bundler.cluster.addons.hooks import sort_hooks, stays
from bundler.cluster.addons.images import list_containers, list_image_volumes
from bundler.cluster.addons.kinds import LAST, PARTS, WAITED_FOR, group_of
from bundler.cluster.addons.objects import DEFAULT, Object
from bundler.cluster.planned_addons import (
    ORDER,
    SECRET,
    AddonSource,
    PlannedAddon,
    PlannedHook,
)
from bundler.cluster.schema import Cluster, Docker
from bundler.cluster.schema_addons import Addon
from bundler.formats.image_references import full_name, parse_reference
from bundler.formats.secret_shapes import find_secret_marker
from bundler.formats.yaml_output import dump_yaml

OTHERS = "objects"
KEPT = ("Namespace", "CustomResourceDefinition", "PersistentVolumeClaim")
"""Kinds that stay when they leave an add-on, without `prune: all`: data would go with them."""


def plan_addons(
    cluster: Cluster,
    objects: Sequence[Object],
    digests: Mapping[str, str],
    sources: Mapping[str, tuple[AddonSource, ...]] | None = None,
) -> tuple[PlannedAddon, ...]:
    """The add-ons of a cluster, those that others need first.

    `digests` are of images by name, as the lock has them: pods name these images by them.
    `sources` are what each add-on was made from.
    """
    made = set(list_made_namespaces(cluster, objects))
    return tuple(
        replace(
            _plan(addon, tuple(_choose(addon, objects, made)), cluster, digests),
            sources=(sources or {}).get(addon.name, ()),
        )
        for addon in sort_addons(cluster.addons)
    )


def sort_addons(addons: Sequence[Addon]) -> tuple[Addon, ...]:
    """Sort add-ons so that each comes after those that it needs, else in the order of the file."""
    waiting = list(addons)
    done: list[Addon] = []
    while waiting:
        names = {addon.name for addon in done}
        ready = next((addon for addon in waiting if names.issuperset(addon.needs)), waiting[0])
        waiting.remove(ready)
        done.append(ready)
    return tuple(done)


def list_made_namespaces(cluster: Cluster, objects: Sequence[Object]) -> Iterator[tuple[str, str]]:
    """Yield add-on and name of each Namespace that bundler makes: of `namespace`, once."""
    known = {"default", "kube-node-lease", "kube-public", "kube-system"}
    known |= {each.name for each in objects if each.kind == "Namespace"}
    for addon in sort_addons(cluster.addons):
        if addon.namespace and addon.namespace not in known:
            known.add(addon.namespace)
            yield addon.name, addon.namespace


def _choose(
    addon: Addon, objects: Sequence[Object], made: set[tuple[str, str]]
) -> Iterator[Object]:
    for owner, namespace in sorted(made):
        if owner == addon.name:
            yield make_namespace(addon.name, namespace)
    yield from (each for each in objects if each.addon == addon.name)


def make_namespace(addon: str, name: str) -> Object:
    """The Namespace of the key `namespace`."""
    data = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    return Object(
        addon=addon, api="v1", kind="Namespace", name=name, namespace="", data=data,
        label="namespace", is_rendered=True, places={},
    )  # fmt: skip


def _plan(
    addon: Addon, objects: Sequence[Object], cluster: Cluster, digests: Mapping[str, str]
) -> PlannedAddon:
    parts: dict[str, list[str]] = {}
    rows: list[tuple[tuple[int, int], str]] = []
    for each in objects:
        if each.hook:
            rows.append(((len(ORDER), 0), make_row(each)))
            continue
        text = dump_yaml(_finish(each, cluster, digests))
        part, rank = choose_part(each, text)
        parts.setdefault(part, []).append(text)
        rows.append(((ORDER.index(part), rank), make_row(each)))
    rows.sort(key=lambda row: row[0], reverse=True)
    return PlannedAddon(
        name=addon.name,
        needs=addon.needs,
        timeout=addon.wait.seconds,
        prune=addon.prune,
        reconcile=addon.reconcile,
        parts={
            part: "---\n".join(f"{t}\n" for t in parts[part]) for part in ORDER if part in parts
        },
        objects=tuple(row for _, row in rows),
        hooks=tuple(_plan_hook(each, cluster, digests) for each in sort_hooks(objects)),
        verify=tuple(
            (
                each.kind,
                each.namespace or addon.namespace or DEFAULT,
                each.name,
                each.condition or "-",
            )
            for each in addon.verify
        ),
    )


def _plan_hook(each: Object, cluster: Cluster, digests: Mapping[str, str]) -> PlannedHook:
    content = dump_yaml(_finish(each, cluster, digests))
    hook = each.hook
    assert hook  # noqa: S101 - narrows the type
    marks = ("" if hook.is_kept else "delete", "end" if hook.ends else "")
    return PlannedHook(
        events=hook.events,
        words=_name(each),
        marks=",".join(mark for mark in marks if mark) or "-",
        content=f"{content}\n",
        is_secret=choose_part(each, content)[0] == SECRET,
    )


def choose_part(each: Object, text: str) -> tuple[str, int]:
    """The part that an object is in, and its rank there: later ones are deleted first."""
    if each.kind == "Secret" or find_secret_marker(text.encode()):
        return SECRET, 0
    part = next((part for part, kinds in PARTS.items() if each.kind in kinds), OTHERS)
    return part, 1 + LAST.index(each.kind) if each.kind in LAST else 0


def make_row(each: Object) -> str:
    """`Deployment.apps ingress controller wait`: what hosts wait for, delete, or keep."""
    strategy = each.data.get("spec", {}) if isinstance(each.data.get("spec"), dict) else {}
    kind = strategy.get("updateStrategy", {})
    is_waited = each.kind in WAITED_FOR and kind.get("type") != "OnDelete" and not each.hook
    marks = (
        "wait" if is_waited else "",
        "hook" if each.hook else "",
        "keep" if each.kind in KEPT else "",
        "stay" if stays(each) else "",
    )
    return " ".join((*_name(each), ",".join(mark for mark in marks if mark) or "-"))


def _name(each: Object) -> tuple[str, str, str]:
    """Kind with its group, namespace or -, and name: the words of kubectl."""
    group = group_of(each.api)
    return f"{each.kind}.{group}" if group else each.kind, each.namespace or "-", each.name


def _finish(each: Object, cluster: Cluster, digests: Mapping[str, str]) -> dict[str, Any]:
    """The object as it is applied: with its namespace, images by digest, and no status."""
    data = deepcopy(each.data)
    data.pop("status", None)
    metadata = data["metadata"]
    metadata.pop("creationTimestamp", None)
    if each.namespace:
        metadata["namespace"] = each.namespace
    else:
        metadata.pop("namespace", None)
    copy = Object(
        addon=each.addon, api=each.api, kind=each.kind, name=each.name, namespace=each.namespace,
        data=data, label=each.label, is_rendered=each.is_rendered, places={},
    )  # fmt: skip
    for _, container in list_containers(copy):
        if isinstance(container.get("image"), str):
            container["image"] = name_image(container["image"], cluster, digests)
        if container.get("imagePullPolicy") == "Always":
            container["imagePullPolicy"] = "IfNotPresent"
    for _, image in list_image_volumes(copy):
        if isinstance(image.get("reference"), str):
            image["reference"] = name_image(image["reference"], cluster, digests)
        if image.get("pullPolicy") == "Always":
            image["pullPolicy"] = "IfNotPresent"
    return data


def name_image(text: str, cluster: Cluster, digests: Mapping[str, str]) -> str:
    """The reference by which pods find the image on hosts: with its digest where that is known.

    Docker finds loaded images by their tag only.
    """
    if text in cluster.images_not_needed:
        return text
    name = text.partition("@")[0]
    if isinstance(cluster.runtime, Docker):
        return name
    listed = (image.ref for image in cluster.images if full_name(image.ref) == full_name(text))
    known = (parse_reference(ref).digest for ref in listed)
    digest = next((each for each in known if each), digests.get(full_name(text)))
    return f"{name}@{digest}" if digest else name


def list_changed_policies(objects: Sequence[Object]) -> Iterator[Object]:
    """Yield the objects with `imagePullPolicy: Always`, which becomes IfNotPresent."""
    for each in objects:
        policies = [c.get("imagePullPolicy") for _, c in list_containers(each)]
        policies += [image.get("pullPolicy") for _, image in list_image_volumes(each)]
        if "Always" in policies:
            yield each


def measure_object(each: Object) -> int:
    """The size of an object in bytes, as client-side apply keeps it in an annotation."""
    return len(json.dumps(each.data, separators=(",", ":")).encode())
