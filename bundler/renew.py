"""Certificates issued anew before they end: the pair of before is kept aside, never overwritten.

    archive/20261124T083000Z/pki/nodes/master1/apiserver/{cert.pem,key.pem}

A pair that was moved aside is missing, and what is missing is issued: so a kill at any moment is
healed by whatever opens the state directory next.
"""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bundler import pki
from bundler.build import open_secrets, state_path
from bundler.certs import Entry, list_state
from bundler.errors import ConfigError
from bundler.gather import Inputs
from bundler.loader import load_cluster
from bundler.pki_files import load_pair
from bundler.state import State, open_state

ARCHIVE = "archive"
PKI = "pki/"
AUTHORITIES = frozenset(f"{PKI}{name}" for name in pki.AUTHORITIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A certificate and when it ends, before and after."""

    path: str  # in the state directory: pki/nodes/master1/apiserver
    subject: str
    before: datetime
    after: datetime


def choose(
    entries: Sequence[Entry], names: Sequence[str], *, everything: bool, days: int | None
) -> tuple[Entry, ...]:
    """What is asked for by names or patterns, by `everything`, or by few days that are left.

    ConfigError where a name is of nothing, or of an authority.
    """
    leaves = [entry for entry in entries if entry.path not in AUTHORITIES]
    if everything:
        return tuple(leaves)
    chosen = {entry.path for entry in leaves if days is not None and entry.days_left < days}
    for name in names:
        pattern = f"{PKI}{name.removeprefix(PKI)}"
        found = {entry.path for entry in leaves if fnmatch.fnmatchcase(entry.path, pattern)}
        if pattern in AUTHORITIES:
            raise ConfigError(
                f"{name} is an authority: what it signed would end with it",
                hint="see docs/certificates.md",
            )
        if not found:
            raise ConfigError(
                f"{name}: no such certificate", hint="see their names with: bundler certs list"
            )
        chosen |= found
    return tuple(entry for entry in leaves if entry.path in chosen)


def list_renewable(inputs: Inputs) -> tuple[Entry, ...]:
    """Every certificate of the cluster's state directory; PkiError where there is none."""
    return list_state(
        state_path(inputs, load_cluster(inputs.description).cluster), datetime.now(UTC)
    )


def renew(inputs: Inputs, chosen: Sequence[Entry], *, keep_keys: bool) -> tuple[Renewal, ...]:
    """Issue each anew, by default with a key of its own, and keep the pair of before aside."""
    cluster = load_cluster(inputs.description).cluster
    directory = state_path(inputs, cluster)
    with open_state(directory) as state:
        aside = directory / ARCHIVE / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        for entry in chosen:
            _set_aside(state, entry.path, aside, keep_key=keep_keys)
    with open_secrets(cluster, inputs):
        after = {entry.path: entry for entry in list_state(directory, datetime.now(UTC))}
    return tuple(
        Renewal(
            path=entry.path,
            subject=entry.subject,
            before=entry.not_after,
            after=after[entry.path].not_after,
        )
        for entry in chosen
        if entry.path in after  # that of a node that is no more in cluster.yaml is not
    )


def _set_aside(state: State, path: str, aside: Path, *, keep_key: bool) -> None:
    """The pair is whole where it was, or whole aside."""
    pair = state.directory / path
    load_pair(pair, state)
    target = aside / path
    for parent in reversed(target.relative_to(state.directory).parents[:-1]):
        state.make_directory(state.directory / parent)
    if keep_key:
        files = {name: state.read_file(pair / name) for name in ("cert.pem", "key.pem")}
        state.write_directory(target, files)
        (pair / "cert.pem").unlink()
    else:
        pair.rename(target)
