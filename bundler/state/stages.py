"""Replace keys in stages: the steps of a rotation, and how one changes the state directory.

Each step changes the state directory in one transaction, so that a killed run applies all of it or
nothing. What it replaces is copied to archive/<time>/ first. install.sh refuses the bundle of a
stage until the other hosts have the stage before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError
from bundler.state.directory import State, check_is_state, open_state, recover_state
from bundler.state.replaced import keep_replaced
from bundler.state.transaction import write_transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The changes of a step to the state directory."""

    messages: tuple[str, ...]  # one line each
    written: Mapping[str, bytes] = field(repr=False)  # by path below the state directory
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()  # files and directories that are copied to the archive first


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a step is asked for."""

    state: State
    plan: ClusterPlan
    now: datetime
    names: tuple[str, ...] = ()  # of keys, if the user named some


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of a rotation."""

    name: str
    requires: str  # the stage that the state directory must be in
    make_change: Callable[[Request], Change]
    next_action: str  # what the user does after the step


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What is rotated by one command line, such as `bundler certs rotate`."""

    command: str
    settled: str  # describes the state of no rotation
    steps: tuple[Step, ...]
    read_stage: Callable[[Path], str]
    check: Callable[[Request], None] = lambda _request: None  # raises what forbids any step


def find_step(rotation: Rotation, name: str) -> Step:
    """Return the step of that name."""
    return next(step for step in rotation.steps if step.name == name)


def describe_stage(rotation: Rotation, directory: Path) -> str:
    """Describe the stage of a state directory and the next steps."""
    check_is_state(directory)
    recover_state(directory)
    return _describe(rotation, rotation.read_stage(directory))


def _describe(rotation: Rotation, stage: str) -> str:
    action = next((step.next_action for step in rotation.steps if step.name == stage), "")
    commands = (f"{rotation.command} {s.name}" for s in rotation.steps if s.requires == stage)
    return f"stage {stage}: {action or rotation.settled}; next: {' or '.join(commands)}"


def take_step(
    rotation: Rotation,
    directory: Path,
    plan: ClusterPlan,
    name: str,
    now: datetime,
    *,
    names: tuple[str, ...] = (),
    dry_run: bool = False,
) -> Change:
    """Take a step; raises ConfigError if the stage does not allow it, PkiError for other faults."""
    check_is_state(directory)
    step = find_step(rotation, name)
    with open_state(directory) as state:
        request = Request(state=state, plan=plan, now=now, names=names)
        _check(rotation, step, request)
        change = step.make_change(request)
        if not dry_run:
            for path in change.replaced:
                keep_replaced(directory / path, state, now)
            write_transaction(directory, change.written, change.removed)
            _remove_empty_parents(directory, change.removed)
    return change


def _check(rotation: Rotation, step: Step, request: Request) -> None:
    stage = rotation.read_stage(request.state.directory)
    if stage != step.requires:
        raise ConfigError(
            f"{rotation.command.removeprefix('bundler ')} {step.name} requires stage"
            f" {step.requires}, but the state directory is in stage {stage}",
            hint=_describe(rotation, stage),
        )
    rotation.check(request)


def _remove_empty_parents(directory: Path, removed: tuple[str, ...]) -> None:
    """Remove the directories that a step empties."""
    for path in removed:
        for parent in (directory / path).relative_to(directory).parents[:-1]:
            place = directory / parent
            if not place.is_dir() or any(place.iterdir()):
                break
            place.rmdir()
