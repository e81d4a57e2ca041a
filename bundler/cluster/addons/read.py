"""The add-ons of cluster.yaml: read, checked, and the images in them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundler.cluster.addons.charts import (
    ChartRequest,
    RenderChart,
    RenderedChart,
    Values,
    list_capabilities,
    list_unknown,
    make_chart_object,
    read_values,
    split_sources,
)
from bundler.cluster.addons.checks import (
    check_names,
    check_namespaces,
    check_objects,
    check_own,
)
from bundler.cluster.addons.hooks import sort_out_hooks
from bundler.cluster.addons.images import FoundImage, find_images
from bundler.cluster.addons.manifests import Render, read_manifests, show_file
from bundler.cluster.addons.objects import Object, find_scopes, is_namespaced, read_objects
from bundler.cluster.addons.planned import (
    list_changed_policies,
    list_made_namespaces,
    measure_object,
    sort_addons,
)
from bundler.cluster.addons.proof import add_found, check_proof, list_stale
from bundler.cluster.components import APPLY_FLAGS, MINORS, minor_of, row_for
from bundler.cluster.needed_addons import list_needed
from bundler.cluster.network_addon import put_network_first
from bundler.cluster.planned_addons import AddonSource
from bundler.cluster.problem import Problem
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_addons import Addon
from bundler.errors import BundlerError, ConfigError
from bundler.formats.bounded_yaml import YamlPath

ANNOTATION_LIMIT = 256 << 10  # bytes of all annotations of an object
SERVER_SIDE = "--server-side"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAddons:
    """The objects of all add-ons, the images in them, and what is wrong."""

    objects: tuple[Object, ...] = ()
    found: tuple[FoundImage, ...] = ()
    problems: tuple[Problem, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)  # file → SHA-256; none with Secrets
    sources: Mapping[str, tuple[AddonSource, ...]] = field(default_factory=dict)  # by add-on


@dataclass(slots=True, kw_only=True)
class _AddonReading:
    """What has been read of one add-on."""

    objects: list[Object] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    sources: list[AddonSource] = field(default_factory=list)
    chart: Object | None = None  # Chart.yaml, if it lists images
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: YamlPath, error: BundlerError) -> None:
        """Add the lines of an error as problems."""
        fix = f". Fix: {error.hint}" if error.hint else ""
        lines = error.message.splitlines()
        self.problems += [Problem(path=path, text=f"{line}{fix}") for line in lines]


def read_addons(
    cluster: Cluster,
    render: Render,
    base: Path,
    *,
    charts: RenderChart | None = None,
    unproved: bool = False,
) -> tuple[Cluster, ReadAddons]:
    """Read every add-on; returns the cluster with the images in them, and the objects.

    Paths in messages are relative to `base`. Nothing is raised: problems have all faults. With
    `unproved`, images that cannot be proved to be carried are warnings.
    """
    if not cluster.addons or minor_of(cluster.kubernetes.version) not in MINORS:
        return cluster, ReadAddons(problems=tuple(check_names(cluster)))
    problems = list(check_names(cluster))
    cluster = put_network_first(cluster)
    index = _number(cluster)
    readings: dict[str, _AddonReading] = {}
    for addon in sort_addons(cluster.addons):  # a chart may use what those that it needs define
        reading = readings[addon.name] = _AddonReading()
        where = ("addons", index[addon.name])
        if addon.chart:
            defined = [o for name in _list_needed(addon, cluster) for o in readings[name].objects]
            _read_chart(reading, addon, cluster, charts, base, defined, where)
        else:
            _read_files(reading, addon, cluster, render, base, where)
        problems += reading.problems
    if any(problem.is_error for problem in problems):
        return cluster, ReadAddons(problems=tuple(problems))
    ordered = [readings[addon.name] for addon in cluster.addons]
    raw = [each for reading in ordered for each in reading.objects]
    not_needed = {
        (addon.name, title)
        for addon in cluster.addons
        if addon.chart
        for title in addon.chart.hooks_not_needed
    }
    carried, of_hooks = sort_out_hooks(_set_scopes(cluster, raw), not_needed)
    problems += (
        Problem(path=_locate(cluster, name), text=text, is_error=wrong)
        for name, text, wrong in of_hooks
    )
    listed = [reading.chart for reading in ordered if reading.chart]
    found = tuple(find_images((*carried, *listed)))
    whole = add_found(cluster, found)
    problems += _check(whole, carried, found)
    for name, fault in check_proof(whole, found):
        problems.append(Problem(path=_locate(cluster, name), text=fault, is_error=not unproved))
    return whole, ReadAddons(
        objects=carried,
        found=found,
        problems=tuple(problems),
        digests={name: digest for each in ordered for name, digest in each.digests.items()},
        sources={name: tuple(reading.sources) for name, reading in readings.items()},
    )


def _list_needed(addon: Addon, cluster: Cluster) -> list[str]:
    """Everything that an add-on needs, in the order in which it was read."""
    found = list_needed(addon.name, {each.name: each.needs for each in cluster.addons})
    order = [each.name for each in sort_addons(cluster.addons)]
    return [name for name in order[: order.index(addon.name)] if name in found]


def _read_files(
    reading: _AddonReading,
    addon: Addon,
    cluster: Cluster,
    render: Render,
    base: Path,
    where: YamlPath,
) -> None:
    if not addon.manifests:
        raise TypeError(f"{addon.name} is a chart")
    try:
        for text in read_manifests(addon.manifests, cluster, render, base):
            objects = list(read_objects(addon.name, text, addon.namespace))
            reading.objects += objects
            digest = "" if _has_secret(objects) else text.digest
            reading.sources.append(AddonSource(kind="manifest", name=text.label, digest=digest))
            if digest:
                name = f"{text.label} (rendered)" if text.is_rendered else text.label
                reading.digests[name] = digest
    except BundlerError as error:
        reading.refuse((*where, "manifests"), error)


def _read_chart(
    reading: _AddonReading, addon: Addon, cluster: Cluster, charts: RenderChart | None, base: Path,
    defined: Sequence[Object], where: YamlPath,
) -> None:  # fmt: skip
    values: list[Values] = []
    for key, one in read_values(addon, base):
        if isinstance(one, ConfigError):
            reading.refuse((*where, *key), one)
        else:
            values.append(one)
    if reading.problems:
        return
    apis = list_capabilities(minor_of(cluster.kubernetes.version), defined)
    try:
        if not charts:
            raise ConfigError("charts are not rendered here")
        chart = charts(ChartRequest(addon=addon, cluster=cluster, values=tuple(values), apis=apis))
        for text in split_sources(chart):
            reading.objects += read_objects(addon.name, text, addon.namespace)
    except BundlerError as error:
        reading.refuse((*where, "chart"), error)
        return
    reading.chart = make_chart_object(addon, chart)
    reading.problems += [
        Problem(path=(*where, "values"), text=text, is_error=False)
        for one in values
        for text in list_unknown(one, chart.package)
    ]
    _record_chart(reading, addon, chart, values, base)


def _record_chart(
    reading: _AddonReading, addon: Addon, chart: RenderedChart, values: Sequence[Values], base: Path
) -> None:
    """Record the digests of a chart, of its values, and of what Helm made of them.

    Values of a chart with Secrets may be passwords, so their digests stay out.
    """
    package = chart.package
    path = addon.chart.path if addon.chart else None
    if path:
        reading.digests[show_file(path, base)] = package.digest
    reading.sources.append(
        AddonSource(
            kind="chart", name=package.name, version=package.version,
            digest=package.digest, url=chart.url, evidence=chart.evidence or "cluster.yaml",
        )
    )  # fmt: skip
    is_open = not _has_secret(reading.objects)
    for one in values:
        digest = one.digest if is_open else ""
        if one.is_file:
            reading.sources.append(AddonSource(kind="manifest", name=one.label, digest=digest))
        if one.is_file and digest:
            reading.digests[one.label] = digest
    if is_open:
        reading.digests[f"{chart.label} of {addon.name} (rendered)"] = chart.digest


def _has_secret(objects: Sequence[Object]) -> bool:
    return any(each.kind == "Secret" for each in objects)


def _set_scopes(cluster: Cluster, raw: Sequence[Object]) -> tuple[Object, ...]:
    """The objects, those of kinds that have none without a namespace."""
    scopes = find_scopes(raw)
    given = {addon.name: addon.namespace for addon in cluster.addons}
    return tuple(
        each if is_namespaced(each, scopes, given[each.addon]) else replace(each, namespace="")
        for each in raw
    )


def _check(
    cluster: Cluster, objects: tuple[Object, ...], found: tuple[FoundImage, ...]
) -> Iterator[Problem]:
    minor = minor_of(cluster.kubernetes.version)
    made = {namespace for _, namespace in list_made_namespaces(cluster, objects)}
    errors = (
        *check_objects(objects, find_scopes(objects), minor),
        *check_own(objects, cluster),
        *_check_sizes(objects, minor),
    )
    for addon, text in errors:
        yield Problem(path=_locate(cluster, addon), text=text)
    for addon, text in check_namespaces(objects, made):
        yield Problem(path=_locate(cluster, addon), text=text, is_error=False)
    for each in list_changed_policies(objects):
        text = f"{each.describe()}: imagePullPolicy Always becomes IfNotPresent: hosts cannot pull"
        yield Problem(path=_locate(cluster, each.addon), text=text, is_error=False)
    for number, text in list_stale(cluster, found):
        yield Problem(path=("images_not_needed", number), text=text, is_error=False)


def _number(cluster: Cluster) -> Mapping[str, int]:
    """Add-on → its index in cluster.yaml."""
    return {addon.name: number for number, addon in enumerate(cluster.addons)}


def _locate(cluster: Cluster, name: str) -> YamlPath:
    """The place of what an add-on is made from."""
    number = _number(cluster)[name]
    return ("addons", number, cluster.addons[number].source)


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
