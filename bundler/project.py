"""The inputs of a command, and the project loaded from them: cluster, plan and lock, read once."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bundler import log
from bundler.bundle.front import BundleFront
from bundler.cache.store import Cache
from bundler.catalog.lifecycles import READ
from bundler.cluster.addons.charts import ChartRequest, RenderedChart
from bundler.cluster.addons.planned import plan_addons
from bundler.cluster.addons.proof import ImageUse, list_uses
from bundler.cluster.loader import Loaded, load_cluster
from bundler.cluster.plan import ClusterPlan, make_plan
from bundler.cluster.schema import Cluster
from bundler.cluster.sourced import locate
from bundler.errors import ConfigError, OutputError, PkiError
from bundler.files import write_atomically
from bundler.formats.bounded_yaml import read_bytes
from bundler.paths import default_state
from bundler.progress import DownloadProgress
from bundler.render.site_files import list_collisions
from bundler.sources.images.options import RegistryOptions
from bundler.sources.images.wanted import list_digests
from bundler.sources.limits import PARALLEL_DOWNLOADS
from bundler.sources.lock import Lock, format_lock, lock_path, parse_lock
from bundler.sources.mirrors import parse_mirror
from bundler.sources.resolved import Resolved, resolve_sources
from bundler.state.state_id import SHOWN, read_state_id

if TYPE_CHECKING:
    from bundler.sources.charts.pinned import PinnedChart
    from bundler.sources.charts.resolve import ChartOptions
    from bundler.sources.download import FetchOptions

EVERY_CHART = frozenset(("charts", "all"))
"""Values of `bundler lock --update` that name every chart."""
CHECK_PARTS = "check what changed, then run: bundler lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that a build depends on."""

    description: Path  # cluster.yaml
    cache: Cache
    mirrors: tuple[str, ...] = ()  # see mirrors.parse_mirror
    ca_file: Path | None = None  # private CA certificates, PEM
    jobs: int = PARALLEL_DOWNLOADS
    offline: bool = False
    pins: Path | None = None
    state: Path | None = None  # None: NAME.state next to cluster.yaml
    new_state: bool = False  # use it although the lock or bundles name another
    strict: bool = False  # require a lock, trust sources, and nothing weak or ended unless accepted
    registries: RegistryOptions = field(default_factory=RegistryOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The loaded inputs. Each file is read once, and the plan is made once."""

    inputs: Inputs
    cluster: Cluster
    plan: ClusterPlan  # without pod subnets, which the state directory assigns
    lock: Lock | None
    digests: Mapping[str, str]  # input file → SHA-256 of the bytes that were read
    parts: Mapping[str, str] = field(default_factory=dict)  # of those, what cluster.yaml names
    image_uses: tuple[ImageUse, ...] = ()  # each image, and each place that it comes from
    charts: Mapping[str, "PinnedChart"] = field(default_factory=dict)  # add-on → its chart

    @property
    def lock_path(self) -> Path:
        """The path of cluster.lock.yaml."""
        return lock_path(self.inputs.description)

    @property
    def state_path(self) -> Path:
        """The path of the state directory."""
        return self.inputs.state or default_state(self.inputs.description, self.cluster.name)


def load(
    inputs: Inputs,
    *,
    quiet: bool = False,
    unproved: bool = False,
    locking: Collection[str] | None = None,
) -> Project:
    """Read and validate cluster.yaml, the pins and the lock; raises ConfigError.

    With `unproved`, images that cannot be proved to be carried are no error. `quiet` leaves out the
    warnings about cluster.yaml, which are about what a build makes of it. `locking` is for a new
    lock: charts that the lock does not have, or that it names, are looked for in their repository.
    """
    today = max(datetime.now(UTC).date(), READ)
    path = lock_path(inputs.description)
    content = _read_lock_bytes(path)

    def render(folder: Path, cluster: Cluster) -> bytes:
        from bundler.sources.kustomize import render_kustomization  # noqa: PLC0415 - slow to import

        lock = parse_lock(content, path) if content is not None else None
        with DownloadProgress() as progress:
            options = make_fetch_options(inputs, progress)
            return render_kustomization(folder, cluster, lock, options)

    charts: dict[str, PinnedChart] = {}

    def render_chart(request: ChartRequest) -> RenderedChart:
        from bundler.sources.charts.render import Renderer  # noqa: PLC0415 - slow to import

        with DownloadProgress() as progress:
            options = make_chart_options(
                inputs,
                progress,
                parse_lock(content, path) if content is not None else None,
                locking,
            )
            return Renderer(
                base=inputs.description.absolute().parent, options=options, charts=charts
            ).render(request)

    loaded = load_cluster(
        inputs.description, inputs.pins, today=today, render=render, charts=render_chart,
        unproved=unproved,
    )  # fmt: skip
    refused = list_refused(loaded, today) if inputs.strict else {}
    for warning in () if quiet else loaded.warnings:
        if warning not in refused:
            log.warning(warning)
    if refused:
        raise_refused(refused)
    lock = parse_lock(content, path) if content is not None else None
    parts = _name_parts(loaded.digests)
    digests = {
        **parts,
        "cluster.lock.yaml": sha256(content).hexdigest() if content is not None else None,
        "pins.yaml": loaded.pins_sha256,
    }
    named = {each.text for each in loaded.addons.found if each.is_certain}
    image_digests = list_digests(lock, named) if lock else {}
    plan = make_plan(
        loaded.cluster,
        plan_addons(loaded.cluster, loaded.addons.objects, image_digests, loaded.addons.sources),
        image_digests,
    )
    if collisions := [
        locate(loaded.root, ("nodes", index, "files", file)).describe(
            f"bundler has a file of its own at {file}: choose another path"
        )
        for index, file in list_collisions(plan)
    ]:
        raise ConfigError("\n".join(dict.fromkeys(collisions)))
    return Project(
        inputs=inputs,
        cluster=loaded.cluster,
        plan=plan,
        lock=lock,
        digests={name: digest for name, digest in digests.items() if digest is not None},
        parts={name: digest for name, digest in parts.items() if name != "cluster.yaml"},
        image_uses=list_uses(loaded.cluster, loaded.addons.found),
        charts=charts,
    )


def make_chart_options(
    inputs: Inputs,
    progress: DownloadProgress,
    lock: Lock | None,
    locking: Collection[str] | None = None,
) -> "ChartOptions":
    """Make the options with which charts are found; `locking` as for `load`."""
    from bundler.sources.charts.resolve import ChartOptions  # noqa: PLC0415 - slow to import

    names = set(locking or ())
    return ChartOptions(
        lock=None if names & EVERY_CHART else lock,
        fetch=make_fetch_options(inputs, progress),
        registries=inputs.registries,
        renewed=names,
        is_locking=locking is not None,
    )


def make_fetch_options(inputs: Inputs, progress: DownloadProgress) -> "FetchOptions":
    """Make the options of all downloads."""
    from bundler.sources.download import FetchOptions  # noqa: PLC0415 - slow to import
    from bundler.sources.transport import make_session  # noqa: PLC0415

    return FetchOptions(
        cache=inputs.cache,
        mirrors=tuple(map(parse_mirror, inputs.mirrors)),
        offline=inputs.offline,
        jobs=inputs.jobs,
        progress=progress,
        session=make_session(inputs.ca_file),
    )


def resolve(project: Project) -> Resolved:
    """Find the URL and digest of every file, image and package; nothing is written or fetched.

    A file that cluster.yaml names and that is not as in the lock is a warning; with --strict that
    raises ConfigError.
    """
    if any(addon.chart for addon in project.cluster.addons):
        from bundler.sources.charts.proposals import check_charts  # noqa: PLC0415 - slow to import

        check_charts(project.cluster, project.lock, project.lock_path)
    resolved = resolve_sources(
        project.plan, project.lock, project.lock_path, strict=project.inputs.strict
    )
    faults = list(_compare_parts(project))
    if faults and project.inputs.strict:
        raise ConfigError("\n".join(faults), hint=f"{CHECK_PARTS}; or omit --strict")
    for fault in faults:
        log.warning(f"{fault}: {CHECK_PARTS}")
    return resolved


def _compare_parts(project: Project) -> Iterator[str]:
    """How the files that cluster.yaml names differ from those of the lock."""
    if not project.lock:
        return
    locked = project.lock.parts or {}
    for name in sorted({*locked, *project.parts}):
        if name not in project.parts:
            yield f"{project.lock_path}: {name} is in the lock, and cluster.yaml names it no more"
        elif name not in locked:
            yield f"{project.lock_path}: {name} is not in the lock, and cluster.yaml names it"
        elif locked[name] != project.parts[name]:
            yield f"{project.lock_path}: {name} has changed since it was locked"


def check(inputs: Inputs, *, quiet: bool = False) -> Project:
    """Load and resolve the project: everything that can be validated without a download."""
    project = load(inputs, quiet=quiet)
    resolve(project)
    return project


def list_refused(loaded: Loaded, today: date) -> Mapping[str, tuple[str, str]]:
    """Warning → key and name that would accept it, of what --strict refuses.

    With SOURCE_DATE_EPOCH a line must have ended by then: a build that is repeated later is refused
    for nothing that was not known at that time.
    """
    epoch = read_source_date()
    on = today if epoch is None else datetime.fromtimestamp(epoch, UTC).date()
    weak = {line: ("security", name) for line, name in loaded.weakenings.items()}
    ended = {
        line: ("lifecycle", row.name) for line, row in loaded.ended.items() if row.has_ended(on)
    }
    return weak | ended


def raise_refused(refused: Mapping[str, tuple[str, str]]) -> NoReturn:
    """Raise a ConfigError that lists what --strict refuses, and the keys that would accept it."""
    names: dict[str, set[str]] = {}
    for key, name in refused.values():
        names.setdefault(key, set()).add(name)
    forms = {
        "security": lambda found: f"security: {{accept: [{', '.join(sorted(found))}]}}",
        "lifecycle": lambda found: (
            f"lifecycle: {{accept: {{{', '.join(f'{name}: REASON' for name in sorted(found))}}}}}"
        ),
    }
    keys = " and ".join(forms[key](found) for key, found in sorted(names.items(), reverse=True))
    raise ConfigError(
        "\n".join(refused),
        hint=f"change them; or accept them with {keys}; or omit --strict",
    )


def read_source_date() -> int | None:
    """SOURCE_DATE_EPOCH, in seconds, or None; raises ConfigError if it is no number."""
    chosen = os.environ.get("SOURCE_DATE_EPOCH")
    if chosen is None:
        return None
    if not chosen.isdigit():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {chosen!r}: must be a number of seconds")
    return int(chosen)


def check_state(project: Project, fronts: Sequence[BundleFront] = ()) -> bool:
    """Check that the state is the one that the lock and the given bundles name.

    Returns whether a build may create it: nothing that is here was made with a state. Raises
    PkiError if another state is here, or none, unless the user asked for a new one.
    """
    if project.inputs.new_state:
        return True
    made = [(front.path, front.state_id) for front in fronts]
    if project.lock and project.lock.state:
        made.insert(0, (project.lock_path, project.lock.state))
    found = read_state_id(project.state_path)
    for where, state_id in made:
        if found is None or state_id not in {found, ""}:
            raise _explain_other_state(where, state_id, project.state_path, found)
    return not made


def _explain_other_state(where: Path, state_id: str, path: Path, found: str | None) -> PkiError:
    made = f"{where} was made with {f'state {state_id[:SHOWN]}' if state_id else 'a state'}"
    restore = f"bundler state import FILE --state {path}"
    other_ways = "if it is elsewhere: --state DIR; if you want another cluster: --new-state"
    if found is None:
        what = "holds no keys" if path.is_dir() else "is missing"
        return PkiError(
            f"{made}, but {path} {what}: with a new state it would be another cluster, which"
            " the installed hosts cannot join",
            hint=f"restore it: {restore}; {other_ways}",
        )
    return PkiError(
        f"{made}, but {path} is state {found[:SHOWN]}: that is another cluster, which the"
        " installed hosts cannot join",
        hint=f"move that one away and restore yours: {restore}; {other_ways}",
    )


def record_state(project: Project, state_id: str) -> Project:
    """Write the id of the state into the lock, if it has another or none.

    Returns the project with the lock as it is then. Where it cannot be written that is a warning;
    the bytes of the bundles are the same.
    """
    if not project.lock or project.lock.state == state_id:
        return project
    lock = project.lock.model_copy(update={"state": state_id})
    content = format_lock(lock)
    try:
        write_atomically(project.lock_path, content, mode=0o644)
    except OutputError as error:
        log.warning(f"{project.lock_path}: cannot record state {state_id[:SHOWN]}: {error.message}")
    else:
        log.note(f"{project.lock_path}: records state {state_id[:SHOWN]} now; commit this change")
    digest = sha256(content).hexdigest()
    return replace(project, lock=lock, digests={**project.digests, "cluster.lock.yaml": digest})


def _name_parts(digests: Mapping[str, str]) -> Mapping[str, str]:
    """The digests of the description: cluster.yaml under that name, others by their paths."""
    (_, own), *others = digests.items()
    return {"cluster.yaml": own, **dict(sorted(others))}


def _read_lock_bytes(path: Path) -> bytes | None:
    """Read the lock; None if there is no such file."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
