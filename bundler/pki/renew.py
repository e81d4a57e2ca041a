"""Renew certificates of the state directory before they end; the old ones are archived.

    archive/<time>/pki/<name>/{cert.pem,key.pem}      what was replaced, and when (UTC)

The old pair is copied to the archive first. Then the new one replaces it: with the same key only
cert.pem is replaced; with a new key the directory is replaced, which takes two renames. If a run is
killed between the renames, the pair is missing, and the same command or the next build issues it.
"""

import fnmatch
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.files import TEMPORARY
from bundler.pki import declarations, issuing
from bundler.pki.ca_origins import SIGN_AGAIN_HINT
from bundler.pki.key_pairs import load_pair, write_pair
from bundler.pki.leaf_certificates import Leaf, load_leaves
from bundler.pki.rotation_stages import SERVICE_ACCOUNT
from bundler.state.directory import State, open_state
from bundler.state.replaced import ARCHIVE, keep_replaced

ROOT = "pki/"
WHY_CAS_ARE_ROTATED = (
    "is a CA, which every host and pod trusts: a CA is replaced in stages, not renewed; see"
    " bundler certs rotate --help"
)
WHY_NOT_SERVICE_ACCOUNT = (
    "is not a certificate but the key that signs service account tokens, and does not end: it is"
    " replaced in stages; see bundler certs rotate --help"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The certificates to renew."""

    names: tuple[str, ...] = ()  # as printed by `bundler certs list`, with the wildcards * and ?
    everything: bool = False
    before: datetime | None = None  # also those that end earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """One certificate that was renewed, or that a dry run would renew."""

    name: str  # its path below the state directory
    old_end: datetime | None  # None: it was missing, for example after a killed run
    new_end: datetime
    is_cut_short: bool  # it ends early because its CA ends


def renew(
    directory: Path,
    plan: ClusterPlan,
    selection: Selection,
    now: datetime,
    *,
    keep_keys: bool = False,
    dry_run: bool = False,
) -> tuple[Renewal, ...]:
    """Renew the selected certificates of a state directory; returns them sorted by name.

    Raises ConfigError for names that are unknown or not renewable, before anything is written.
    """
    with open_state(directory) as state:
        leaves = {
            _name_of(leaf, state): leaf
            for leaf in load_leaves(state, plan)
            if leaf.key or _is_archived(leaf, state)
        }
        chosen = _select(leaves, selection, plan)
        issuers = _load_issuers(state, [leaves[name] for name in chosen], plan, now)
        renewals = []
        for name in chosen:
            leaf = leaves[name]
            issuer = issuers[declarations.get_ca_name(leaf.spec, plan)]
            renewals.append(_preview(name, leaf, issuer, plan, now))
            if not dry_run:
                keep_replaced(leaf.directory, state, now)
                _replace(leaf, issuer, state, plan, now, keep_key=keep_keys)
    return tuple(renewals)


def _is_archived(leaf: Leaf, state: State) -> bool:
    """Whether the certificate existed before; new ones are issued by a build."""
    return any((state.directory / ARCHIVE).glob(f"*/{_name_of(leaf, state)}"))


def _name_of(leaf: Leaf, state: State) -> str:
    return leaf.directory.relative_to(state.directory).as_posix()


def _select(leaves: Mapping[str, Leaf], selection: Selection, plan: ClusterPlan) -> list[str]:
    chosen = set(leaves) if selection.everything else set()
    faults: list[str] = []
    hints: list[str] = []
    for pattern in selection.names:
        fault = _explain_refusal(pattern, plan)
        found = fnmatch.filter(leaves, _full_name(pattern))
        if fault or not found:
            faults.append(fault or f"{pattern}: the cluster has no certificate of this name")
            hints += [] if fault else _suggest(pattern, leaves)
        chosen.update(found)
    if faults:
        raise ConfigError("\n".join(faults), hint="; ".join(dict.fromkeys(hints)) or None)
    if selection.before:
        chosen.update(
            name
            for name, leaf in leaves.items()
            if not leaf.stored or leaf.stored.pair.not_after < selection.before
        )
    return sorted(chosen)


def _full_name(pattern: str) -> str:
    return pattern if pattern.startswith(ROOT) else ROOT + pattern


def _explain_refusal(pattern: str, plan: ClusterPlan) -> str | None:
    """Why a name is not renewable; None if it is."""
    name = _full_name(pattern).removeprefix(ROOT).rstrip("/")
    if name == SERVICE_ACCOUNT:
        return f"{pattern} {WHY_NOT_SERVICE_ACCOUNT}"
    return f"{pattern} {WHY_CAS_ARE_ROTATED}" if name in declarations.list_ca_names(plan) else None


def _suggest(pattern: str, names: Collection[str]) -> Iterator[str]:
    close = get_close_matches(_full_name(pattern), names, n=1)
    yield f"did you mean {close[0]}?" if close else "see bundler certs list for the names"


def _load_issuers(
    state: State, leaves: Sequence[Leaf], plan: ClusterPlan, now: datetime
) -> dict[str, issuing.Issuer]:
    issuers = {}
    for name in sorted({declarations.get_ca_name(leaf.spec, plan) for leaf in leaves}):
        directory = state.directory / "pki" / name
        if not (directory / "key.pem").exists():
            hint = SIGN_AGAIN_HINT if directory.is_dir() else declarations.BUILD_FIRST
            raise PkiError(f"{name}: its key is not in this state directory", hint=hint)
        stored = load_pair(directory, state)
        if stored.pair.not_after <= now:
            raise PkiError(
                f"{name} ended on {stored.pair.not_after:%Y-%m-%d} and can no longer sign",
                hint=declarations.NEW_CAS_HINT,
            )
        issuers[name] = stored.issuer
    return issuers


def _preview(
    name: str, leaf: Leaf, issuer: issuing.Issuer, plan: ClusterPlan, now: datetime
) -> Renewal:
    wanted = now.replace(second=0, microsecond=0) + timedelta(days=plan.cluster.pki.days)
    new_end = min(wanted, issuer.certificate.not_valid_after_utc)
    return Renewal(
        name=name,
        old_end=leaf.stored.pair.not_after if leaf.stored else None,
        new_end=new_end,
        is_cut_short=new_end < wanted,
    )


def _replace(
    leaf: Leaf,
    issuer: issuing.Issuer,
    state: State,
    plan: ClusterPlan,
    now: datetime,
    *,
    keep_key: bool,
) -> None:
    key = leaf.key if keep_key and leaf.key else issuing.make_key(plan.cluster.pki.key)
    certificate = issuing.issue(leaf.content, key.public_key(), issuer, now, plan.cluster.pki.days)
    if key is leaf.key:
        state.write_file(leaf.directory / "cert.pem", issuing.encode_certificate(certificate))
        return
    if not leaf.key:
        write_pair(leaf.directory, key, certificate, state)
        return
    # open_state removes directories with this prefix that a killed run leaves
    old = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=leaf.directory.parent))
    leaf.directory.rename(old / leaf.directory.name)
    write_pair(leaf.directory, key, certificate, state)
    shutil.rmtree(old)
