"""Replace the CAs in stages, so that no host meets a certificate that it does not trust.

    trust     create new CAs; hosts trust both, the old ones sign                  pki/next/
    issue     the new CAs sign, and every certificate is issued again              pki/previous/
    drop      hosts trust the new CAs only
    abandon   back from `trust`: remove the new CAs, which have signed nothing

Each step changes the state directory in one transaction, so that a killed run applies all of it or
nothing. What a step replaces is copied to archive/<time>/ first. install.sh refuses the bundle of a
stage until every other host has the stage before it
(templates/common/lib/coordination/rollout-order.sh).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.ca_origins import CaOrigin, CertificateAuthority, load_ca
from bundler.pki.key_pairs import StoredPair, load_pair
from bundler.pki.leaf_certificates import load_leaves
from bundler.pki.rotation_stages import (
    NEXT,
    PREVIOUS,
    RotationStage,
    read_stage,
)
from bundler.state.directory import State, check_is_state, open_state, recover_state
from bundler.state.replaced import keep_replaced
from bundler.state.transaction import write_transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationChange:
    """The changes of a step to the state directory."""

    messages: tuple[str, ...]  # one line each
    written: Mapping[str, bytes] = field(repr=False)  # by path below the state directory
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()  # directories that are copied to the archive first


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStep:
    """One command of `bundler certs rotate`."""

    name: str
    requires: RotationStage  # the stage that the state directory must be in
    make_change: Callable[[State, ClusterPlan, datetime], RotationChange]
    next_action: str  # what the user does after the step


def describe_stage(directory: Path) -> str:
    """Describe the stage of a state directory and the next steps."""
    check_is_state(directory)
    recover_state(directory)
    return _describe(read_stage(directory))


def _describe(stage: RotationStage) -> str:
    action = next((step.next_action for step in STEPS if step.name == stage.value), "")
    commands = (f"bundler certs rotate {step.name}" for step in STEPS if step.requires is stage)
    return (
        f"stage {stage.value}: {action or 'one set of CAs signs and is trusted'}; next:"
        f" {' or '.join(commands)}"
    )


def rotate(
    directory: Path, plan: ClusterPlan, name: str, now: datetime, *, dry_run: bool = False
) -> RotationChange:
    """Run a step; raises ConfigError if the stage does not allow it, PkiError for other faults."""
    step = find_step(name)
    with open_state(directory) as state:
        _check_order(step, state, plan)
        change = step.make_change(state, plan, now)
        if not dry_run:
            for path in change.replaced:
                keep_replaced(directory / path, state, now)
            write_transaction(directory, change.written, change.removed)
            _remove_empty(directory / "pki")
    return change


def check_step(directory: Path, plan: ClusterPlan, name: str) -> None:
    """Raise the errors that `rotate` raises before it changes anything."""
    with open_state(directory) as state:
        _check_order(find_step(name), state, plan)


def find_step(name: str) -> RotationStep:
    """Return the step of that name."""
    return next(step for step in STEPS if step.name == name)


def _check_order(step: RotationStep, state: State, plan: ClusterPlan) -> None:
    stage = read_stage(state.directory)
    if stage is not step.requires:
        raise ConfigError(
            f"certs rotate {step.name} requires stage {step.requires.value}, but the state"
            f" directory is in stage {stage.value}",
            hint=_describe(stage),
        )
    _check_made_by_bundler(state, plan)


def _check_made_by_bundler(state: State, plan: ClusterPlan) -> None:
    """Raise PkiError for external CAs: bundler replaces only CAs that it made."""
    for name in declarations.list_ca_names(plan):
        found = load_ca(state.directory / "pki" / name, state)
        if found.origin is not CaOrigin.MADE:
            raise PkiError(
                f"{name} is an external CA: bundler cannot rotate it",
                hint="import a certificate that was renewed for the same key and name:"
                " docs/guides/external-ca.md",
            )


def _trust(_state: State, plan: ClusterPlan, now: datetime) -> RotationChange:
    rotation_id = f"{now:%Y%m%dT%H%M%SZ}"
    days = plan.cluster.pki.ca_days
    written: dict[str, bytes] = {}
    messages = []
    for name in declarations.list_ca_names(plan):
        key = issuing.make_key(plan.cluster.pki.key)
        certificate = issuing.issue_ca(name, plan.name, key, now, days, rotation_id=rotation_id)
        written[f"pki/{NEXT}/{name}/cert.pem"] = issuing.encode_certificate(certificate)
        written[f"pki/{NEXT}/{name}/key.pem"] = issuing.encode_private_key(key)
        messages.append(
            f"{name}: created a new CA ({rotation_id}), ends on"
            f" {certificate.not_valid_after_utc:%Y-%m-%d}"
        )
    return RotationChange(messages=tuple(messages), written=written)


def _issue(state: State, plan: ClusterPlan, now: datetime) -> RotationChange:
    root = state.directory / "pki"
    written: dict[str, bytes] = {}
    removed: list[str] = []
    replaced: list[str] = []
    issuers: dict[str, StoredPair] = {}
    for name in declarations.list_ca_names(plan):
        old, new = _load_current_and_next(name, state)
        issuers[name] = new
        written[f"pki/{PREVIOUS}/{name}/cert.pem"] = old.pair.certificate_pem
        written[f"pki/{name}/cert.pem"] = new.pair.certificate_pem
        written[f"pki/{name}/key.pem"] = new.pair.key_pem
        removed += [f"pki/{NEXT}/{name}/cert.pem", f"pki/{NEXT}/{name}/key.pem"]
        replaced.append(f"pki/{name}")
    leaves = load_leaves(state, plan)
    for leaf in leaves:
        place = leaf.directory.relative_to(state.directory).as_posix()
        issuer = issuers[declarations.get_ca_name(leaf.spec, plan)].issuer
        key = issuing.make_key(plan.cluster.pki.key)
        certificate = issuing.issue(
            leaf.content, key.public_key(), issuer, now, plan.cluster.pki.days
        )
        written[f"{place}/cert.pem"] = issuing.encode_certificate(certificate)
        written[f"{place}/key.pem"] = issuing.encode_private_key(key)
        if (root.parent / place).is_dir():
            replaced.append(place)
    messages = (
        *(f"{name}: the new CA signs, the previous one is still trusted" for name in issuers),
        f"issued {len(leaves)} certificates again, with new keys",
    )
    return RotationChange(
        messages=messages, written=written, removed=tuple(removed), replaced=tuple(replaced)
    )


def _drop(state: State, _plan: ClusterPlan, _now: datetime) -> RotationChange:
    names = _list_cas_in(state, PREVIOUS)
    return RotationChange(
        messages=tuple(f"{name}: the previous CA is no longer trusted" for name in names),
        written={},
        removed=tuple(f"pki/{PREVIOUS}/{name}/cert.pem" for name in names),
        replaced=tuple(f"pki/{PREVIOUS}/{name}" for name in names),
    )


def _abandon(state: State, _plan: ClusterPlan, _now: datetime) -> RotationChange:
    names = _list_cas_in(state, NEXT)
    return RotationChange(
        messages=tuple(f"{name}: removed the new CA, which has signed nothing" for name in names),
        written={},
        removed=tuple(
            f"pki/{NEXT}/{name}/{file}.pem" for name in names for file in ("cert", "key")
        ),
        replaced=tuple(f"pki/{NEXT}/{name}" for name in names),
    )


STEPS = (
    RotationStep(
        name="trust",
        requires=RotationStage.SETTLED,
        make_change=_trust,
        next_action="install the bundles of this stage on every host, in any order; then restart"
        " the pods that use the API server, because they read its CA only when they start",
    ),
    RotationStep(
        name="issue",
        requires=RotationStage.TRUST,
        make_change=_issue,
        next_action="install the bundles of this stage on every host, control planes first;"
        " kubelets then get new certificates",
    ),
    RotationStep(
        name="drop",
        requires=RotationStage.ISSUE,
        make_change=_drop,
        next_action="install the bundles of this stage on every host, in any order; this prunes"
        " earlier generations, which hold the previous CAs",
    ),
    RotationStep(
        name="abandon",
        requires=RotationStage.TRUST,
        make_change=_abandon,
        next_action="install the bundles on every host that has bundles of stage trust",
    ),
)
"""Every step, in order."""


def _load_current_and_next(name: str, state: State) -> tuple[CertificateAuthority, StoredPair]:
    root = state.directory / "pki"
    return load_ca(root / name, state), load_pair(root / NEXT / name, state)


def _list_cas_in(state: State, stage: str) -> list[str]:
    return sorted(path.parent.name for path in (state.directory / "pki" / stage).glob("*/cert.pem"))


def _remove_empty(root: Path) -> None:
    """Remove the empty directories that a step leaves."""
    for stage in (NEXT, PREVIOUS):
        for directory in (*(root / stage).glob("*"), root / stage):
            with suppress(OSError):
                directory.rmdir()
