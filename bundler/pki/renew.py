"""Certificates made anew in the state directory before they end; nothing that was there is lost.

    archive/<time>/pki/<name>/{cert.pem,key.pem}      what was replaced, and when (UTC)

First the old pair is copied there, whole. Then the new one is put in its place: with the same key
by replacing cert.pem; with a new key by replacing the directory, which takes two renames. A run
that is killed between them leaves none, and the next build makes one, as for every pair that is
not there; so does the same command again.
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
from bundler.pki.certs import check_is_state
from bundler.pki.external_ca.origins import SIGN_AGAIN
from bundler.pki.key_pairs import load_pair, write_pair
from bundler.pki.leaf_certificates import Leaf, load_leaves
from bundler.pki.store import SERVICE_ACCOUNT
from bundler.state.directory import State, open_state

ARCHIVE = "archive"
ROOT = "pki/"
WHY_NOT_AUTHORITY = (
    "is an authority: what it signed is believed by every host and every pod, so a new one comes in"
    " by stages and not by renewal: bundler certs rotate --help"
)
WHY_NOT_SERVICE_ACCOUNT = (
    "is no certificate but the key that signs service accounts' tokens: it does not end, and with"
    " another one every token that pods hold would be refused at once"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which certificates are meant."""

    names: tuple[str, ...] = ()  # as `bundler certs list` prints them; * and ? stand for others
    everything: bool = False
    before: datetime | None = None  # all that end earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """One certificate that was made anew, or would be."""

    name: str  # its path below the state directory
    old_end: datetime | None  # None: it was lost, as by a run that was killed
    new_end: datetime
    is_cut_short: bool  # by its authority's end


def renew(
    directory: Path,
    plan: ClusterPlan,
    selection: Selection,
    now: datetime,
    *,
    keep_keys: bool = False,
    dry_run: bool = False,
) -> tuple[Renewal, ...]:
    """Make the chosen certificates of a state directory anew, sorted by name.

    Raises ConfigError for names that are none or may not be renewed, before anything is written.
    """
    check_is_state(directory)
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
            issuer = issuers[declarations.authority_of(leaf.spec, plan)]
            renewals.append(_preview(name, leaf, issuer, plan, now))
            if not dry_run:
                archive(leaf.directory, state, now)
                _replace(leaf, issuer, state, plan, now, keep_key=keep_keys)
    return tuple(renewals)


def archive_of(directory: Path, now: datetime) -> Path:
    """Where a renewal of that moment keeps what it replaced."""
    return directory / ARCHIVE / f"{now:%Y%m%dT%H%M%SZ}"


def _is_archived(leaf: Leaf, state: State) -> bool:
    """Whether it was there once; a build makes what never was."""
    return any((state.directory / ARCHIVE).glob(f"*/{_name_of(leaf, state)}"))


def _name_of(leaf: Leaf, state: State) -> str:
    return leaf.directory.relative_to(state.directory).as_posix()


def _select(leaves: Mapping[str, Leaf], selection: Selection, plan: ClusterPlan) -> list[str]:
    chosen = set(leaves) if selection.everything else set()
    faults: list[str] = []
    hints: list[str] = []
    for given in selection.names:
        fault = _explain_refusal(given, plan)
        found = fnmatch.filter(leaves, _full_name(given))
        if fault or not found:
            faults.append(fault or f"{given}: the cluster has no certificate of this name")
            hints += [] if fault else _suggest(given, leaves)
        chosen.update(found)
    if faults:
        raise ConfigError("\n".join(faults), hint="; ".join(dict.fromkeys(hints)) or None)
    if selection.before:
        chosen.update(
            name
            for name, leaf in leaves.items()
            if leaf.stored is None or leaf.stored.pair.not_after < selection.before
        )
    return sorted(chosen)


def _full_name(given: str) -> str:
    return given if given.startswith(ROOT) else ROOT + given


def _explain_refusal(given: str, plan: ClusterPlan) -> str | None:
    """Why something of the state's may not be renewed; None for what may."""
    name = _full_name(given).removeprefix(ROOT).rstrip("/")
    if name == SERVICE_ACCOUNT:
        return f"{given} {WHY_NOT_SERVICE_ACCOUNT}"
    return f"{given} {WHY_NOT_AUTHORITY}" if name in declarations.list_authorities(plan) else None


def _suggest(given: str, names: Collection[str]) -> Iterator[str]:
    close = get_close_matches(_full_name(given), names, n=1)
    yield f"did you mean {close[0]}?" if close else "bundler certs list prints the names"


def _load_issuers(
    state: State, leaves: Sequence[Leaf], plan: ClusterPlan, now: datetime
) -> dict[str, issuing.Issuer]:
    issuers = {}
    for name in sorted({declarations.authority_of(leaf.spec, plan) for leaf in leaves}):
        directory = state.directory / "pki" / name
        if not (directory / "key.pem").exists():
            raise PkiError(f"{name} signs elsewhere: its key is not here", hint=SIGN_AGAIN)
        stored = load_pair(directory, state)
        if stored.pair.not_after <= now:
            raise PkiError(
                f"{name} ended on {stored.pair.not_after:%Y-%m-%d}, and cannot sign any more",
                hint=declarations.NEW_AUTHORITIES,
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


def archive(directory: Path, state: State, now: datetime) -> None:
    """Copy a pair, or what there is of it, as one, before anything is done to it."""
    names = [name for name in ("cert.pem", "key.pem") if (directory / name).exists()]
    if not names:
        return
    target = archive_of(state.directory, now) / directory.relative_to(state.directory)
    at = state.directory
    for part in target.parent.relative_to(state.directory).parts:
        at /= part
        state.make_directory(at)
    files = {name: state.read_file(directory / name) for name in names}
    if not target.is_dir():
        state.write_directory(target, files)


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
    if leaf.key is None:
        write_pair(leaf.directory, key, certificate, state)
        return
    # a name that open_state removes where a kill leaves it behind
    away = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=leaf.directory.parent))
    leaf.directory.rename(away / leaf.directory.name)
    write_pair(leaf.directory, key, certificate, state)
    shutil.rmtree(away)
