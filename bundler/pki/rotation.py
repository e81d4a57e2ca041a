"""New authorities in place of the old, by stages: nobody ever meets what it does not believe.

    trust     new ones are made; hosts believe both, the old sign           pki/next/
    issue     the new sign, and every certificate is made anew              pki/previous/
    drop      hosts believe the new ones only
    abandon   back from `trust`: the new ones go, having signed nothing

Each stage is one change of the state directory (all of it or nothing, whenever a run is killed);
what it replaces is copied to archive/<time>/ first. A bundle of a stage is refused by install.sh
until every other host has the stage before (templates/common/lib/coordination/rollout-order.sh).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.certs import check_is_state
from bundler.pki.external_ca.origins import Authority, CaOrigin, load_authority
from bundler.pki.key_pairs import StoredPair, load_pair
from bundler.pki.leaf_certificates import load_leaves
from bundler.pki.renew import archive
from bundler.pki.rotation_stages import (
    NEXT,
    PREVIOUS,
    RotationStage,
    read_stage,
)
from bundler.state.directory import State, heal_state, open_state
from bundler.state.transaction import write_together


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationChange:
    """What a step does to the state directory."""

    says: tuple[str, ...]  # a line each
    written: Mapping[str, bytes] = field(repr=False)  # by path below the state directory
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()  # directories that are copied to the archive first


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: where it leads from, what it does, and what is to be done then."""

    name: str
    after: RotationStage
    does: Callable[[State, ClusterPlan, datetime], RotationChange]
    then: str


def describe_stage(directory: Path) -> str:
    """Where a state directory stands, and what comes next."""
    check_is_state(directory)
    heal_state(directory)
    return _describe(read_stage(directory))


def _describe(stage: RotationStage) -> str:
    steps = {step.name for step in STEPS if step.after is stage}
    done = next((step.then for step in STEPS if step.name == stage.value), "")
    return (
        f"stage {stage.value}: {done or 'one set of authorities signs, and is believed'}; next: "
        + (" or ".join(f"bundler certs rotate {step.name}" for step in STEPS if step.name in steps))
    )


def rotate(
    directory: Path, plan: ClusterPlan, name: str, now: datetime, *, dry_run: bool = False
) -> RotationChange:
    """Carry out a step; raises ConfigError where it is not its turn, PkiError for faults."""
    check_is_state(directory)
    step = find_step(name)
    with open_state(directory) as state:
        _check_turn(step, state, plan)
        change = step.does(state, plan, now)
        if not dry_run:
            for path in change.replaced:
                archive(directory / path, state, now)
            write_together(directory, change.written, change.removed)
            _remove_empty(directory / "pki")
    return change


def check_step(directory: Path, plan: ClusterPlan, name: str) -> None:
    """Raise what `rotate` would before it makes anything."""
    check_is_state(directory)
    with open_state(directory) as state:
        _check_turn(find_step(name), state, plan)


def find_step(name: str) -> Step:
    """The step of that name."""
    return next(step for step in STEPS if step.name == name)


def _check_turn(step: Step, state: State, plan: ClusterPlan) -> None:
    stage = read_stage(state.directory)
    if stage is not step.after:
        raise ConfigError(
            f"certs rotate {step.name} comes after the stage {step.after.value}, and the state"
            f" directory is in the stage {stage.value}",
            hint=_describe(stage),
        )
    _check_own(state, plan)


def _check_own(state: State, plan: ClusterPlan) -> None:
    """Only what bundler made does it replace."""
    for name in declarations.list_authorities(plan):
        found = load_authority(state.directory / "pki" / name, state)
        if found.origin is not CaOrigin.MADE:
            raise PkiError(
                f"{name} is your own: its successor comes from where it came from",
                hint="import a certificate that was renewed for the same key and name: "
                "docs/guides/external-ca.md",
            )


def _trust(_state: State, plan: ClusterPlan, now: datetime) -> RotationChange:
    unit = f"{now:%Y%m%dT%H%M%SZ}"
    days = plan.cluster.pki.ca_days
    written: dict[str, bytes] = {}
    says = []
    for name in declarations.list_authorities(plan):
        key = issuing.make_key(plan.cluster.pki.key)
        certificate = issuing.issue_authority(name, plan.name, key, now, days, unit=unit)
        written[f"pki/{NEXT}/{name}/cert.pem"] = issuing.encode_certificate(certificate)
        written[f"pki/{NEXT}/{name}/key.pem"] = issuing.encode_private_key(key)
        says.append(
            f"{name}: a new one is made ({unit}), ends {certificate.not_valid_after_utc:%Y-%m-%d}"
        )
    return RotationChange(says=tuple(says), written=written)


def _issue(state: State, plan: ClusterPlan, now: datetime) -> RotationChange:
    root = state.directory / "pki"
    written: dict[str, bytes] = {}
    removed: list[str] = []
    replaced: list[str] = []
    issuers: dict[str, StoredPair] = {}
    for name in declarations.list_authorities(plan):
        old, new = _load_both(name, state)
        issuers[name] = new
        written[f"pki/{PREVIOUS}/{name}/cert.pem"] = old.pair.certificate_pem
        written[f"pki/{name}/cert.pem"] = new.pair.certificate_pem
        written[f"pki/{name}/key.pem"] = new.pair.key_pem
        removed += [f"pki/{NEXT}/{name}/cert.pem", f"pki/{NEXT}/{name}/key.pem"]
        replaced.append(f"pki/{name}")
    leaves = load_leaves(state, plan)
    for leaf in leaves:
        place = leaf.directory.relative_to(state.directory).as_posix()
        issuer = issuers[declarations.authority_of(leaf.spec, plan)].issuer
        key = issuing.make_key(plan.cluster.pki.key)
        certificate = issuing.issue(
            leaf.content, key.public_key(), issuer, now, plan.cluster.pki.days
        )
        written[f"{place}/cert.pem"] = issuing.encode_certificate(certificate)
        written[f"{place}/key.pem"] = issuing.encode_private_key(key)
        if (root.parent / place).is_dir():
            replaced.append(place)
    says = (
        *(f"{name}: the new one signs, the former is still believed" for name in issuers),
        f"{len(leaves)} certificates made anew, with new keys",
    )
    return RotationChange(
        says=says, written=written, removed=tuple(removed), replaced=tuple(replaced)
    )


def _drop(state: State, _plan: ClusterPlan, _now: datetime) -> RotationChange:
    names = _list_in(state, PREVIOUS)
    return RotationChange(
        says=tuple(f"{name}: the former one is believed no more" for name in names),
        written={},
        removed=tuple(f"pki/{PREVIOUS}/{name}/cert.pem" for name in names),
        replaced=tuple(f"pki/{PREVIOUS}/{name}" for name in names),
    )


def _abandon(state: State, _plan: ClusterPlan, _now: datetime) -> RotationChange:
    names = _list_in(state, NEXT)
    return RotationChange(
        says=tuple(f"{name}: the new one is given up, having signed nothing" for name in names),
        written={},
        removed=tuple(
            f"pki/{NEXT}/{name}/{file}.pem" for name in names for file in ("cert", "key")
        ),
        replaced=tuple(f"pki/{NEXT}/{name}" for name in names),
    )


STEPS = (
    Step(
        name="trust",
        after=RotationStage.SETTLED,
        does=_trust,
        then="install the bundles of this stage on every host, in any order; then restart the pods"
        " that talk to the API server, which believe what they read when they began",
    ),
    Step(
        name="issue",
        after=RotationStage.TRUST,
        does=_issue,
        then="install the bundles of this stage on every host, control planes first; kubelets get"
        " new certificates then",
    ),
    Step(
        name="drop",
        after=RotationStage.ISSUE,
        does=_drop,
        then="install the bundles of this stage on every host, in any order; earlier generations"
        " are pruned there, as they hold the former authorities",
    ),
    Step(
        name="abandon",
        after=RotationStage.TRUST,
        does=_abandon,
        then="install the bundles on every host that has those of the stage trust",
    ),
)
"""Every step, in their order."""


def _load_both(name: str, state: State) -> tuple[Authority, StoredPair]:
    root = state.directory / "pki"
    return load_authority(root / name, state), load_pair(root / NEXT / name, state)


def _list_in(state: State, stage: str) -> list[str]:
    return sorted(path.parent.name for path in (state.directory / "pki" / stage).glob("*/cert.pem"))


def _remove_empty(root: Path) -> None:
    """What a stage leaves of directories; one that holds anything stays."""
    for stage in (NEXT, PREVIOUS):
        for directory in (*(root / stage).glob("*"), root / stage):
            with suppress(OSError):
                directory.rmdir()
