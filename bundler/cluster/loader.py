"""Reads cluster.yaml; reports all errors at once as `file:line:col: path: what, and the fix`."""

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bundler.catalog.lifecycles import ReleaseLine
from bundler.cluster.addons.charts import RenderChart
from bundler.cluster.addons.manifests import Render
from bundler.cluster.addons.read import ReadAddons, read_addons
from bundler.cluster.audit_policy import AuditPolicy, check_audit_policy
from bundler.cluster.audit_syslog import check_syslog
from bundler.cluster.checks import check_cluster
from bundler.cluster.components import MINORS, minor_of
from bundler.cluster.extra_checks import check_extra
from bundler.cluster.fleet import RULES, expand, list_shared, read_cell
from bundler.cluster.handlers import check_classes, check_handlers
from bundler.cluster.images import add_needed, check_images
from bundler.cluster.inputs import Pin
from bundler.cluster.lifecycle import check_lifecycle
from bundler.cluster.node_labels import check_node_labels
from bundler.cluster.os_packages import check_packages, check_sources
from bundler.cluster.parts import YamlFile, read_description, read_yaml
from bundler.cluster.plan_conflicts import check_plan_conflicts
from bundler.cluster.policy_checks import check_policy
from bundler.cluster.problem import Problem
from bundler.cluster.profile import add_profile, check_profile
from bundler.cluster.requirements import check_requirements
from bundler.cluster.schema import Cluster, Node
from bundler.cluster.service_users import check_readable, check_user_ids
from bundler.cluster.site_files import check_site_files
from bundler.cluster.sourced import Place, Value, list_texts, locate, make_plain
from bundler.cluster.validation_messages import explain
from bundler.cluster.values import DnsLabel, Model
from bundler.cluster.weakenings import check_weakenings
from bundler.errors import ConfigError
from bundler.formats.bounded_yaml import YamlPath

NO_NODE = "no node is in this group: name it in `groups` of a node, or remove it"
SHOWN_NODES = 3
PROBE = {"name": "node", "address": "192.0.2.1", "roles": ["worker"]}
"""What a node needs for its other keys to be read."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid cluster.yaml, with its warnings."""

    cluster: Cluster
    warnings: tuple[str, ...]
    weakenings: Mapping[str, str]  # warnings about weakenings that are not accepted, with the name
    ended: Mapping[str, ReleaseLine]  # warnings about release lines that are not accepted
    digests: Mapping[str, str]  # file, as seen from the directory of cluster.yaml → SHA-256
    pins_sha256: str | None
    root: Value  # everything that is written, each node with what it inherits
    addons: ReadAddons = field(default_factory=ReadAddons)


class _Named(Model):
    """Only the name of a cluster."""

    name: DnsLabel


@dataclass(frozen=True, slots=True)
class _Message:
    """A text about a place, and the nodes that it is about if it is written elsewhere."""

    place: Place
    text: str
    nodes: tuple[str, ...] = ()
    problem: Problem | None = None

    def __str__(self) -> str:
        """`file:line:column: path: text`."""
        more = len(self.nodes) - SHOWN_NODES
        shown = ", ".join(self.nodes[:SHOWN_NODES]) + (f" and {more} more" if more > 0 else "")
        where = f" ({'nodes' if len(self.nodes) > 1 else 'node'} {shown})" if self.nodes else ""
        return self.place.describe(f"{self.text}{where}")


def load_cluster(
    path: Path,
    pins: Path | None = None,
    *,
    today: date | None = None,
    render: Render | None = None,
    charts: RenderChart | None = None,
    unproved: bool = False,
) -> Loaded:
    """Read cluster.yaml, with pins in place of its `artifacts`; ConfigError lists every error.

    Release lines that have ended by `today` are warnings; without it no date is compared. `render`
    makes the objects of kustomizations; without it add-ons are not read. `charts` makes those of
    Helm charts. With `unproved`, images that cannot be proved to be carried are warnings.
    """
    description = read_description(path, RULES, read_cell)
    fleet = expand(description)
    pins_document = _read_pins(pins) if pins else None
    root = _replace_artifacts(fleet.root, pins_document.root) if pins_document else fleet.root
    root = add_profile(root, RULES)
    faults = [_Message(*fault) for fault in fleet.faults]
    cluster = _validate(root, faults)
    for node in fleet.unused:
        _check_unused(node, faults)
    if cluster is None or faults:
        raise ConfigError(_format(faults, path))
    cluster, addons = add_needed(_resolve_files(cluster, root)), ReadAddons()
    if render:
        cluster, addons = read_addons(
            cluster, render, path.absolute().parent, charts=charts, unproved=unproved
        )
    found = (*_check(cluster, root, today), *_place(addons.problems, cluster, root))
    messages = tuple(_gather(found))
    errors = [each for each in messages if each.problem and each.problem.is_error]
    if errors:
        raise ConfigError(_format(errors, path))
    problems = {str(each): each.problem for each in messages if each.problem}
    unused = (str(_Message(node.place, NO_NODE)) for node in fleet.unused)
    return Loaded(
        cluster,
        (*problems, *unused),
        {line: problem.weakening for line, problem in problems.items() if problem.weakening},
        {line: problem.ended for line, problem in problems.items() if problem.ended},
        digests={**description.digests, **addons.digests},
        pins_sha256=pins_document.sha256 if pins_document else None,
        root=root,
        addons=addons,
    )


def _place(problems: Iterable[Problem], cluster: Cluster, root: Value) -> Iterator[_Message]:
    return (_make_message(problem, problem.path, cluster, root) for problem in problems)


def read_cluster_name(path: Path) -> str:
    """Read only the name in cluster.yaml, for what needs nothing else; raises ConfigError."""
    root = read_description(path, RULES, read_cell).root
    if not (value := root.get("name")):
        raise ConfigError(locate(root, ("name",)).describe("is missing"))
    name = {"name": make_plain(value)}
    try:
        return _Named.model_validate(name).name
    except ValidationError as error:
        raw = dict(list_texts(Value({"name": value}, root.place)))
        lines = (locate(root, at).describe(text) for at, text in explain(error, name, raw, _Named))
        raise ConfigError("\n".join(lines)) from error


def _validate(root: Value, faults: list[_Message]) -> Cluster | None:
    """The cluster, or None and what is wrong with each value."""
    data = make_plain(root)
    try:
        return Cluster.model_validate(data)
    except ValidationError as error:
        raw = dict(list_texts(root))
        for where, text in explain(error, data, raw, Cluster, partial(locate, root)):
            faults.append(_Message(locate(root, where), text))
    return None


def _check_unused(node: Value, faults: list[_Message]) -> None:
    """What is wrong with the keys of a group that no node is in."""
    data = {**PROBE, **make_plain(node)}
    try:
        Node.model_validate(data)
    except ValidationError as error:
        for where, text in explain(error, data, dict(list_texts(node)), Node):
            faults.append(_Message(locate(node, where), text))


def _check(cluster: Cluster, root: Value, today: date | None) -> Iterator[_Message]:
    """Every problem of the cluster, and of what single hosts have of their own."""
    known = set()
    for problem in (*_check_settings(cluster), *_check_whole(cluster, today)):
        known.add((problem.path, problem.text))
        yield _make_message(problem, problem.path, cluster, root)
    for own, indices in _list_own(cluster):
        for problem in _check_settings(own):
            if (problem.path, problem.text) in known:
                continue
            is_own = str(problem.path[0]) in list_shared()
            for index in indices:
                path = ("nodes", index, *problem.path) if is_own else problem.path
                message = _make_message(problem, path, cluster, root)
                yield message if is_own else replace(message, nodes=(cluster.nodes[index].name,))


def _check_settings(cluster: Cluster) -> Iterator[Problem]:
    """The problems of a cluster as all of its hosts, or one of them, have it."""
    yield from check_cluster(cluster)
    yield from check_extra(cluster)
    yield from check_profile(cluster)
    yield from check_packages(cluster)
    yield from check_handlers(cluster)
    yield from check_requirements(cluster)
    yield from check_plan_conflicts(cluster)


def _check_whole(cluster: Cluster, today: date | None) -> Iterator[Problem]:
    """The problems that no host can have alone."""
    yield from check_sources(cluster)
    yield from check_classes(cluster)
    yield from check_images(cluster)
    yield from _check_audit(cluster)
    yield from check_syslog(cluster)
    if minor_of(cluster.kubernetes.version) in MINORS:
        yield from check_policy(cluster)
    yield from check_weakenings(cluster)
    yield from check_lifecycle(cluster, today)
    yield from check_node_labels(cluster)
    yield from check_site_files(cluster)
    yield from check_user_ids(cluster)
    yield from check_readable(cluster)


def _list_own(cluster: Cluster) -> Iterator[tuple[Cluster, list[int]]]:
    """The cluster as hosts have it that differ, with the indices of those hosts."""
    alike: dict[str, tuple[Cluster, list[int]]] = {}
    for index, node in enumerate(cluster.nodes):
        own = cluster.on_host(node)
        if own is not cluster:
            key = repr([getattr(own, name) for name in list_shared()])
            alike.setdefault(key, (own, []))[1].append(index)
    yield from alike.values()


def _make_message(problem: Problem, path: YamlPath, cluster: Cluster, root: Value) -> _Message:
    place = locate(root, path)
    is_elsewhere = path[:1] == ("nodes",) and len(path) > 1 and place.path[:1] != ("nodes",)
    is_elsewhere &= place.path[:1] != (cluster.nodes[int(path[1])].name,) if is_elsewhere else True
    nodes = (cluster.nodes[int(path[1])].name,) if is_elsewhere else ()
    return _Message(place, problem.text, nodes, problem)


def _gather(messages: Iterable[_Message]) -> Iterator[_Message]:
    """The messages, those with one text about one place as one."""
    alike: dict[tuple[Place, str], list[_Message]] = {}
    for message in messages:
        alike.setdefault((message.place, message.text), []).append(message)
    for several in alike.values():
        nodes = dict.fromkeys(name for message in several for name in message.nodes)
        yield replace(several[0], nodes=tuple(nodes))


def _format(messages: Iterable[_Message], main: Path) -> str:
    """The messages as lines, those of cluster.yaml first, in the order of the files."""

    def rank(message: _Message) -> tuple[bool, str, int, str]:
        place = message.place
        return place.file != main, str(place.file), place.line, str(message)

    return "\n".join(map(str, sorted(_gather(messages), key=rank)))


def _replace_artifacts(root: Value, pins: Value) -> Value:
    """The description with pins in place of its `artifacts` of the same names."""
    own, added = root.get("artifacts"), pins.content["artifacts"]
    before = own.content if own and isinstance(own.content, dict) else {}
    merged = Value({**before, **added.content}, own.place if own else added.place)
    return Value({**root.content, "artifacts": merged}, root.place)


def _resolve_files(cluster: Cluster, root: Value) -> Cluster:
    """The cluster with absolute paths of files: each is relative to the file that names it."""

    def resolve(value: Any, *where: str | int) -> Any:
        if isinstance(value, Path):
            return (locate(root, where).file.parent / value).absolute()
        if isinstance(value, tuple):
            items = tuple(resolve(item, *where, index) for index, item in enumerate(value))
            return items if any(map(operator.is_not, items, value)) else value
        if isinstance(value, dict):
            inner = {key: resolve(item, *where, key) for key, item in value.items()}
            return inner if any(inner[key] is not item for key, item in value.items()) else value
        if not isinstance(value, Model):
            return value
        given = {name: getattr(value, name) for name in value.model_fields_set}
        inner = {name: resolve(item, *where, name) for name, item in given.items()}
        changes = {name: item for name, item in inner.items() if item is not given[name]}
        return value.model_copy(update=changes) if changes else value

    resolved: Cluster = resolve(cluster)
    return resolved


def _check_audit(cluster: Cluster) -> Iterator[Problem]:
    """Every problem of the site's audit policy, with its place in that file."""
    path, where = cluster.audit.policy, ("audit", "policy")
    if path is None:
        return
    try:
        document = read_yaml(path, "apiVersion, kind and rules")
        data = make_plain(document.root)
        policy = AuditPolicy.model_validate(data)
    except ConfigError as error:
        yield from (Problem(path=where, text=line) for line in error.message.splitlines())
    except ValidationError as error:
        for place, text in explain(error, data, dict(list_texts(document.root)), AuditPolicy):
            yield Problem(path=where, text=document.describe(place, text))
    else:
        yield from check_audit_policy(policy, path.name, minor_of(cluster.kubernetes.version))


def _read_pins(path: Path) -> YamlFile:
    document = read_yaml(path, "artifacts")
    data = make_plain(document.root)
    if set(data) != {"artifacts"} or not isinstance(data["artifacts"], dict):
        raise ConfigError(f"{path}:1:1: a pins file must have one key, artifacts, and no other")
    errors = []
    for name, pin in data["artifacts"].items():
        try:
            Pin.model_validate(pin)
        except ValidationError as error:
            raw = dict(list_texts(document.root.content["artifacts"].content[name]))
            errors += [
                document.describe(("artifacts", name, *where), text)
                for where, text in explain(error, pin, raw, Pin)
            ]
    if errors:
        raise ConfigError("\n".join(errors))
    return document
