"""The images that objects name: where they are, and how certain it is that one is an image."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundler.cluster.addons.kinds import POD_SPECS, group_of, list_builtin_groups
from bundler.cluster.addons.objects import Object
from bundler.formats.bounded_yaml import YamlError, YamlPath, decode, read_manifests, show_path
from bundler.formats.image_references import parse_reference

CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
ANNOTATIONS = ("helm.sh/images", "artifacthub.io/images")
"""Annotations with a YAML list of `{name, image}`."""

REFERENCE = (
    r"(?:[a-zA-Z0-9][-a-zA-Z0-9.]*(?::[0-9]+)?/)?(?:[a-z0-9][-._a-z0-9]*/)*[a-z0-9][-._a-z0-9]*"
    r"(?::\w[-\w.]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
FULL = re.compile(
    r"(?<![-\w./@:$}])(?:[a-z0-9][-a-z0-9]*\.)+[a-z]{2,}(?::[0-9]+)?/(?:[a-z0-9][-._a-z0-9]*/)*"
    r"[a-z0-9][-._a-z0-9]*(?::\w[-\w.]{0,127}(?:@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})"
    r"(?![-\w./@:{$])"
)
"""`quay.io/team/tool:1.2` anywhere in a text: a host name, a path, and a tag or digest."""

IN_TEXT = re.compile(rf"\bimage['\"]?\s*[:=]\s*['\"]?({REFERENCE})(?![-\w./@:{{$])", re.IGNORECASE)
OPTION = re.compile(rf"-{{1,2}}[-\w.]*image[-\w.]*=({REFERENCE})", re.IGNORECASE)
NAMES_IMAGE = re.compile(r"(?:.*[a-z_])?image|image(?:name|ref|url)", re.IGNORECASE)
"""Keys and names of environment variables whose value is an image: `image`, `baseImage`."""

NAMES_VARIABLE = re.compile(r".*IMAGE.*", re.IGNORECASE)
WHOLE = re.compile(REFERENCE)
PROSE = frozenset(("description", "message", "summary", "runbook_url"))
CREATES = frozenset((
    "pods", "deployments", "daemonsets", "statefulsets", "replicasets", "replicationcontrollers",
    "jobs", "cronjobs", "*",
))  # fmt: skip
WORKLOAD_GROUPS = frozenset(("", "apps", "batch", "extensions", "*"))
ROLES_THAT_CREATE = frozenset(("cluster-admin", "admin", "edit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """One text that is an image, or looks like one."""

    text: str
    object: Object
    path: YamlPath
    why: str  # container | image volume | variable | argument | custom resource | annotation | text
    is_certain: bool = True
    is_reference: bool = True  # else `text` names a workload that starts pods of its own

    @property
    def place(self) -> str:
        """`file:line KIND/NAMESPACE/NAME path`."""
        shown = show_path(self.path)
        return f"{self.object.locate(self.path)} {self.object.title}{f' {shown}' if shown else ''}"


def find_images(objects: Sequence[Object]) -> Iterator[FoundImage]:
    """Yield every image, and everything that looks like one, in the order of the objects."""
    creators = _find_creators(objects)
    for each in objects:
        yield from _find_annotated(each)
        if each.kind in POD_SPECS and group_of(each.api) in list_builtin_groups():
            yield from _find_in_pods(each)
            if role := creators.get((each.namespace, _find_account(each))):
                yield FoundImage(
                    text=each.title, object=each, path=(), is_certain=False, is_reference=False,
                    why=f"{role} lets it start pods, with images that no manifest names",
                )  # fmt: skip
        elif each.kind == "CustomResourceDefinition":
            continue
        elif group_of(each.api) in list_builtin_groups():
            yield from _find_in_texts(each, each.data, ())
        else:
            yield from _find_in_resource(each, each.data, ())


def list_containers(each: Object) -> Iterator[tuple[YamlPath, dict[str, Any]]]:
    """Yield path and content of each container of a workload."""
    path = POD_SPECS.get(each.kind, ())
    spec = _get(each.data, path) if path else None
    if not isinstance(spec, dict):
        return
    for key in CONTAINERS:
        for index, container in enumerate(_as_list(spec.get(key))):
            if isinstance(container, dict):
                yield (*path, key, index), container


def list_image_volumes(each: Object) -> Iterator[tuple[YamlPath, dict[str, Any]]]:
    """Yield path and content of `image` of each image volume of a workload."""
    path = POD_SPECS.get(each.kind, ())
    spec = _get(each.data, path) if path else None
    volumes = _as_list(spec.get("volumes")) if isinstance(spec, dict) else ()
    for index, volume in enumerate(volumes):
        if isinstance(volume, dict) and isinstance(volume.get("image"), dict):
            yield (*path, "volumes", index, "image"), volume["image"]


def _find_in_pods(each: Object) -> Iterator[FoundImage]:
    for where, container in list_containers(each):
        if isinstance(image := container.get("image"), str):
            yield FoundImage(text=image, object=each, path=(*where, "image"), why="container")
        yield from _find_in_environment(each, where, container)
        for key in ("command", "args"):
            for index, word in enumerate(_as_list(container.get(key))):
                yield from _find_in_argument(each, str(word), (*where, key, index))
    for where, image in list_image_volumes(each):
        if isinstance(text := image.get("reference"), str):
            yield FoundImage(text=text, object=each, path=(*where, "reference"), why="image volume")


def _find_in_environment(
    each: Object, where: YamlPath, container: Mapping[str, Any]
) -> Iterator[FoundImage]:
    for index, variable in enumerate(_as_list(container.get("env"))):
        if not isinstance(variable, dict) or not isinstance(value := variable.get("value"), str):
            continue
        path = (*where, "env", index, "value")
        if NAMES_VARIABLE.fullmatch(str(variable.get("name"))) and is_complete(value):
            yield FoundImage(text=value, object=each, path=path, why="variable")
        else:
            yield from _scan(each, value, path)


def _find_in_argument(each: Object, word: str, path: YamlPath) -> Iterator[FoundImage]:
    if (option := OPTION.fullmatch(word)) and is_complete(option[1]):
        yield FoundImage(text=option[1], object=each, path=path, why="argument")
    else:
        yield from _scan(each, word, path)


def _find_in_resource(each: Object, value: Any, path: YamlPath) -> Iterator[FoundImage]:
    """The images of a custom resource: by the names of its keys, and in its texts."""
    if isinstance(value, dict):
        yield from _find_split(each, value, path)
        for key, item in value.items():
            if isinstance(item, str) and NAMES_IMAGE.fullmatch(key) and is_complete(item):
                yield FoundImage(text=item, object=each, path=(*path, key), why="custom resource")
            elif isinstance(item, str) and key == "image" and is_reference(item):
                yield FoundImage(
                    text=item, object=each, path=(*path, key), why="custom resource",
                    is_certain=False,
                )  # fmt: skip
            elif key not in PROSE and not (not path and key == "metadata"):
                yield from _find_in_resource(each, item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _find_in_resource(each, item, (*path, index))
    elif isinstance(value, str):
        yield from _scan(each, value, path)


def _find_split(each: Object, value: Mapping[str, Any], path: YamlPath) -> Iterator[FoundImage]:
    """An image in parts: `{repository: …, tag: …}`, with or without `registry`."""
    repository, tag = value.get("repository", value.get("image")), value.get("tag")
    if isinstance(repository, str) and isinstance(tag, str | int | float) and tag != "":
        registry = value.get("registry")
        whole = f"{registry}/{repository}:{tag}" if registry else f"{repository}:{tag}"
        if is_complete(whole):
            yield FoundImage(text=whole, object=each, path=(*path, "tag"), why="custom resource")


def _find_in_texts(each: Object, value: Any, path: YamlPath) -> Iterator[FoundImage]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in PROSE and not (not path and key == "metadata"):
                yield from _find_in_texts(each, item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _find_in_texts(each, item, (*path, index))
    elif isinstance(value, str):
        yield from _scan(each, value, path)


def _scan(each: Object, text: str, path: YamlPath) -> Iterator[FoundImage]:
    """What a text names: `image: NAME:TAG` is an image, `quay.io/team/tool:1.2` looks like one."""
    named = {match[1] for match in IN_TEXT.finditer(text) if is_reference(match[1])}
    for reference in sorted(named):
        is_certain = is_complete(reference)
        yield FoundImage(text=reference, object=each, path=path, why="text", is_certain=is_certain)
    for match in FULL.finditer(text):
        if match[0] not in named:
            yield FoundImage(text=match[0], object=each, path=path, why="text", is_certain=False)
            named.add(match[0])


def _find_annotated(each: Object) -> Iterator[FoundImage]:
    annotations = each.data["metadata"].get("annotations")
    for key in ANNOTATIONS if isinstance(annotations, dict) else ():
        try:
            documents = list(read_manifests(decode(str(annotations.get(key, "")).encode())))
        except YamlError:
            continue
        for item in (i for d in documents for i in _as_list(d.data) if isinstance(i, dict)):
            if isinstance(image := item.get("image"), str):
                path = ("metadata", "annotations", key)
                yield FoundImage(text=image, object=each, path=path, why="annotation")


def is_complete(text: str) -> bool:
    """Whether a text is a reference with a tag or a digest."""
    return is_reference(text) and not {":", "@"}.isdisjoint(text.rpartition("/")[2])


def is_reference(text: str) -> bool:
    """Whether a text is a reference; without a tag it may be any word."""
    if not WHOLE.fullmatch(text):
        return False
    try:
        parse_reference(text)
    except ValueError:
        return False
    return True


def _find_account(each: Object) -> str:
    spec = _get(each.data, POD_SPECS[each.kind])
    name = spec.get("serviceAccountName") if isinstance(spec, dict) else None
    return str(name or "default")


def _find_creators(objects: Sequence[Object]) -> Mapping[tuple[str, str], str]:
    """Namespace and name of each service account that may create pods → the role that allows it."""
    roles = {
        (each.kind, each.namespace, each.name)
        for each in objects
        if each.kind in {"Role", "ClusterRole"} and any(map(_creates, _list_rules(each)))
    }
    roles |= {("ClusterRole", "", name) for name in ROLES_THAT_CREATE}
    found = {}
    for each in objects:
        reference = each.data.get("roleRef")
        if each.kind not in {"RoleBinding", "ClusterRoleBinding"} or not isinstance(
            reference, dict
        ):
            continue
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        if (kind, each.namespace if kind == "Role" else "", name) not in roles:
            continue
        for subject in _as_list(each.data.get("subjects")):
            if isinstance(subject, dict) and subject.get("kind") == "ServiceAccount":
                namespace = str(subject.get("namespace") or each.namespace)
                found[namespace, str(subject.get("name"))] = f"{kind} {name}"
    return found


def _list_rules(each: Object) -> Iterator[Mapping[str, Any]]:
    yield from (rule for rule in _as_list(each.data.get("rules")) if isinstance(rule, dict))


def _creates(rule: Mapping[str, Any]) -> bool:
    return (
        not {"create", "*"}.isdisjoint(_as_list(rule.get("verbs")))
        and not CREATES.isdisjoint(_as_list(rule.get("resources")))
        and not WORKLOAD_GROUPS.isdisjoint(_as_list(rule.get("apiGroups")))
    )


def _get(value: Any, path: YamlPath) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
