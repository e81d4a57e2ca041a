"""Render charts with Helm: twice, in two homes at two times, and the result must be the same."""

import hashlib
import json
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bundler import log
from bundler.cache.refs import CHARTS, read_ref, write_ref
from bundler.catalog import Artifact, default_version
from bundler.cluster.addons.charts import (
    ChartRequest,
    RenderedChart,
    find_differences,
)
from bundler.cluster.components import minor_of
from bundler.cluster.schema import Cluster
from bundler.cluster.schema_addons import Addon
from bundler.errors import ArtifactError, ConfigError
from bundler.formats.bounded_yaml import YamlError
from bundler.formats.chart_packages import ChartPackage, read_chart
from bundler.sources.artifacts import find_pinned
from bundler.sources.charts.pinned import PinnedChart
from bundler.sources.charts.resolve import ChartOptions, ensure_chart
from bundler.sources.images.pull import read_document, store_document
from bundler.sources.lock import Lock
from bundler.sources.tools import FailedError, find_machine, run_program, unpack_program
from bundler.urls import show_url

HELM = "helm"
NEED = "charts are rendered with helm"
BY_HAND = "render it yourself: helm template NAME CHART > FILE.yaml, and name it in manifests"
DAYS = 800
"""How far apart the local times of two renderings are: year and month differ in any case."""
SECOND = 1.1
TRIED = 8  # values that are tried for a hint
SHOWN = 5  # differences in a message
NEAR = 3  # lines between a random value and the value of the user that replaces it

RANDOM = re.compile(
    r"\b(rand(AlphaNum|Alpha|Numeric|Ascii|Bytes|Int)|uuidv4|gen(CA|CAWithKey|PrivateKey|SelfSignedCert\w*|"
    r"SignedCert\w*)|shuffle|now|ago|htpasswd|bcrypt|encryptAES)\b"
)
"""Functions of templates whose result is another one each time."""
VALUE = re.compile(r"\.Values\.([A-Za-z_][\w.]*\w|[A-Za-z_])")


@dataclass(slots=True, kw_only=True)
class Renderer:
    """Renders the charts of one cluster; `charts` are those of repositories that were found."""

    base: Path  # of paths in messages
    options: ChartOptions
    charts: dict[str, PinnedChart] = field(default_factory=dict)

    def render(self, request: ChartRequest) -> RenderedChart:
        """Render a chart; raises BundlerError."""
        addon = request.addon
        path, label, found = self._find(addon)
        package = read_chart(path, label)
        _check_same(addon, package, found, label)
        fetch = self.options.fetch
        tool = find_helm(request.cluster, self.options.lock, find_machine(NEED, BY_HAND))
        name = f"rendered {_identify(tool, package, request)}"
        known = read_ref(CHARTS, name, fetch.cache)
        content = read_document(known, fetch.cache) if known else None
        if not content:
            what = f"chart {package.name} {package.version} of add-on {addon.name}"
            member = f"linux-{tool.arch}/{HELM}"
            rendering = log.step(f"rendering {what}")
            with rendering, unpack_program(tool, member, HELM, fetch) as program:
                run = HelmRun(
                    program=program, chart=path, home=program.parent, request=request,
                    package=package, label=label,
                )  # fmt: skip
                content = run.render_twice()
            write_ref(CHARTS, name, store_document(content, fetch.cache), fetch.cache)
        return RenderedChart(
            package=package,
            content=content,
            url=show_url(found.url) if found else "",
            evidence=f"{found.origin}: {found.evidence}" if found else "",
        )

    def _find(self, addon: Addon) -> tuple[Path, str, PinnedChart | None]:
        chart = addon.chart
        if chart and chart.path:
            is_below = chart.path.is_relative_to(self.base)
            return (
                chart.path,
                str(chart.path.relative_to(self.base) if is_below else chart.path),
                None,
            )
        found, path = ensure_chart(addon, self.options)
        self.charts[addon.name] = found
        return path, f"chart {found.name} {found.version}", found


def _identify(tool: Artifact, package: ChartPackage, request: ChartRequest) -> str:
    """A digest of everything that Helm's result depends on: the same charts are rendered once."""
    addon = request.addon
    parts = (
        tool.pin, package.name, package.digest, addon.name, addon.namespace or "",
        request.cluster.kubernetes.version, *request.apis,
        *(values.digest for values in request.values),
    )  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _check_same(addon: Addon, package: ChartPackage, found: PinnedChart | None, label: str) -> None:
    if found and found.digest != package.digest:
        raise ArtifactError(
            f"{label}: the cache has another package: sha256:{package.digest}",
            hint="find out who changed it: bundler cache verify",
        )
    chart = addon.chart
    wanted = (chart.name, chart.version) if chart and chart.repo else None
    if wanted and wanted != (package.name, package.version):
        raise ArtifactError(
            f"{label}: its Chart.yaml says {package.name} {package.version}",
            hint="find out who changed it before you trust the repository",
        )


def find_helm(cluster: Cluster, lock: Lock | None, arch: str) -> Artifact:
    """The upstream file with helm; raises ArtifactError if no digest of it is known."""
    version = default_version(HELM, minor_of(cluster.kubernetes.version))
    artifact = find_pinned(cluster, lock, HELM, version, arch)
    if not artifact.digest:
        raise ArtifactError(
            f"{NEED} {version} ({arch}) on this machine, and `artifacts` has no digest for it",
            hint=f"add its sha256 to `artifacts` as {HELM}/{arch}; or {BY_HAND}",
        )
    return artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class HelmRun:
    """One chart with its values, and the program that renders it."""

    program: Path
    chart: Path  # a package or a folder
    home: Path
    request: ChartRequest
    package: ChartPackage
    label: str

    def render_twice(self) -> bytes:
        """Render the chart; raises ConfigError if Helm refuses it, or two results differ."""
        first, second = self._render_pair({})
        if first == second:
            return first
        try:
            differences = find_differences(first, second)
        except YamlError as error:
            raise ConfigError(f"{self.label}: helm made no valid YAML: {error}") from error
        if not differences:
            return first  # comments or the order of keys
        raise ConfigError(
            "\n".join(_explain_differences(differences)),
            hint=self._make_hint([template for template, _, _ in differences]),
        )

    def _render_pair(self, changed: Mapping[str, str]) -> tuple[bytes, bytes]:
        started = time.monotonic()
        first = self._render("first", -DAYS, changed)
        time.sleep(max(0.0, SECOND - (time.monotonic() - started)))
        return first, self._render("second", DAYS, changed)

    def _render(self, name: str, days: int, changed: Mapping[str, str]) -> bytes:
        """Render the chart in a home of its own, with a local time that is days off."""
        home = self.home / name
        home.mkdir(exist_ok=True)
        zone = home / "zone"
        zone.write_bytes(make_zone(days * 24 * 3600))
        command: list[str | Path] = [
            self.program, "template", self.request.addon.name, self.chart, "--include-crds",
            "--namespace", self.request.addon.namespace or "default",
            "--kube-version", self.request.cluster.kubernetes.version,
            *(f"--api-versions={api}" for api in self.request.apis),
        ]  # fmt: skip
        for number, values in enumerate(self.request.values):
            path = home / f"values-{number}.yaml"
            path.write_bytes(values.content)
            command += ["--values", path]
        for key, value in changed.items():
            command += ["--set-string", f"{key}={value}"]
        try:
            return run_program(command, home, {"TZ": str(zone)})
        except FailedError as error:
            raise ConfigError(
                f"{self.label}: helm template: {error}", hint=_explain(str(error))
            ) from error

    def _make_hint(self, templates: list[str]) -> str:
        """Which values make the result the same: those that were tried and did."""
        candidates = list(dict.fromkeys(_list_candidates(self.package, templates)))
        needed: dict[str, str] = {}
        for key in islice(candidates, TRIED):
            try:
                before = find_differences(*self._render_pair(needed))
                after = find_differences(*self._render_pair({**needed, key: "tried"}))
            except (ConfigError, YamlError):
                continue
            if len(after) < len(before):
                needed[key] = "tried"
            if not after:
                return f"set {' and '.join(needed)} in the add-on's values"
        if needed:
            return (
                f"set {' and '.join(needed)} in the add-on's values; for the other fields find the"
                " value in the chart's documentation"
            )
        return (
            "find the value that replaces it in the chart's documentation, often one with the name"
            " of an existing Secret, and set it in the add-on's values"
        )


def _list_candidates(package: ChartPackage, templates: list[str]) -> Iterator[str]:
    """Keys of values near random values: in the templates that differ, then in all others."""
    ordered = sorted(package.templates, key=lambda name: name not in templates)
    for name in ordered:
        lines = package.templates[name].split("\n")
        for number, line in enumerate(lines):
            if RANDOM.search(line):
                near = lines[max(0, number - NEAR) : number + NEAR + 1]
                yield from (key for text in (line, *near) for key in VALUE.findall(text))
    for template in templates:  # a value that a random one in a named template replaces
        yield from VALUE.findall(package.templates.get(template, ""))


def _explain_differences(differences: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """One line for each object, with the paths in which it differs."""
    paths: dict[str, list[str]] = {}
    for template, title, path in differences:
        paths.setdefault(f"{template}: {title}", []).append(path)
    for where, found in islice(paths.items(), SHOWN):
        more = len(found) - SHOWN
        shown = ", ".join(filter(None, found[:SHOWN])) + (f" and {more} more" if more > 0 else "")
        yield f"{where}: {f'{shown}: ' if shown else ''}another value each time it is rendered"


def _explain(text: str) -> str | None:
    if "missing in charts/" in text:
        return "nothing is fetched: run helm dependency build FOLDER, which puts them into charts/"
    if "kubeVersion" in text:
        return "choose a version of the chart for the cluster's Kubernetes version"
    return None


def make_zone(seconds: int) -> bytes:
    """A time zone file whose local time is off by that many seconds (RFC 9636, version 1)."""
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return b"TZif\0" + bytes(15) + counts + struct.pack(">lbb", seconds, 0, 0) + b"UTC\0"
