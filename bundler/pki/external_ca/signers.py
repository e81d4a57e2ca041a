"""Who signs in a state: the site's PKI the authorities, or each certificate; decided once.

All places of authorities that others sign are made as one change: with some of them a later run
would take those for all that were ever asked for, and bundler would make the rest itself.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.external_ca.origins import (
    ORIGIN,
    CaOrigin,
    is_elsewhere,
    read_origin,
)
from bundler.pki.store import (
    SERVICE_ACCOUNT,
    check_not_lost,
    ensure_beginnings,
    ensure_kubelet_authority,
)
from bundler.state.directory import State
from bundler.state.transaction import write_together


def decide_signers(
    state: State, plan: ClusterPlan, now: datetime, *, authorities: Collection[str], leaves: bool
) -> None:
    """Make the keys of authorities that others sign, and write down who does.

    Raises PkiError where the state has decided otherwise, ConfigError for names that are none.
    """
    leaves = leaves or is_elsewhere(state)
    _check_names(authorities, plan, leaves=leaves)
    if leaves:
        expected = dict.fromkeys(declarations.list_authorities(plan), CaOrigin.ELSEWHERE)
        expected |= dict.fromkeys(authorities, CaOrigin.REQUESTED)
    else:
        chosen = authorities or _choose_authorities(state, plan)
        expected = dict.fromkeys(chosen, CaOrigin.REQUESTED)
    _check_free(state, expected)
    ensure_beginnings(state, plan, [])
    _ensure_places(state, plan, expected)
    if leaves and read_origin(state.directory / "pki" / declarations.KUBELET_CA) is CaOrigin.MADE:
        ensure_kubelet_authority(None, state, plan, now=now, notes=[])


def _check_names(names: Collection[str], plan: ClusterPlan, *, leaves: bool) -> None:
    known = (declarations.KUBELET_CA,) if leaves else declarations.list_authorities(plan)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--authority {name}: expected {' or '.join(known)}",
                hint="with --leaves only the kubelets' authority can be asked for beside them"
                if leaves
                else None,
            )


def _choose_authorities(state: State, plan: ClusterPlan) -> tuple[str, ...]:
    """Those that were asked for before; else all that were not given as files."""
    root = state.directory / "pki"
    origins = {name: read_origin(root / name) for name in declarations.list_authorities(plan)}
    asked = tuple(name for name, origin in origins.items() if origin is CaOrigin.REQUESTED)
    return asked or tuple(
        name for name, origin in origins.items() if origin is not CaOrigin.IMPORTED
    )


def _check_free(state: State, expected: Mapping[str, CaOrigin]) -> None:
    """Refuse to change who signs: the certificates of a cluster hang on it."""
    root = state.directory / "pki"
    others = {
        name: found
        for name, origin in expected.items()
        if (root / name).is_dir() and (found := read_origin(root / name)) is not origin
    }
    if others:
        what = {
            CaOrigin.MADE: "made by bundler",
            CaOrigin.IMPORTED: "given as a file",
            CaOrigin.REQUESTED: "signed as an intermediate",
            CaOrigin.ELSEWHERE: "one whose key is elsewhere",
        }
        raise PkiError(
            "\n".join(
                f"{root / name}: this authority is {what[origin]}, and an authority is never"
                " replaced"
                for name, origin in others.items()
            ),
            hint="requests are for a new cluster: name a new, empty state directory with --state",
        )


def _ensure_places(state: State, plan: ClusterPlan, expected: Mapping[str, CaOrigin]) -> None:
    root = state.directory / "pki"
    files: dict[str, bytes] = {}
    for name, origin in expected.items():
        if (root / name).is_dir():
            continue
        check_not_lost(root / name, after=(SERVICE_ACCOUNT, *declarations.list_authorities(plan)))
        files[f"pki/{name}/{ORIGIN}"] = f"{origin}\n".encode()
        if origin is CaOrigin.REQUESTED:  # its key is made here
            key = issuing.make_key(plan.cluster.pki.key)
            files[f"pki/{name}/key.pem"] = issuing.encode_private_key(key)
    if files:
        write_together(state.directory, files)
