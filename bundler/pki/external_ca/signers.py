"""Decide once for a state directory what the site's PKI signs: the CAs, or every certificate.

The directories of all externally signed CAs are created in one transaction. If only some of them
existed, a later run would assume that only those are external, and make the other CAs itself.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.ca_certificates import check_not_lost, ensure_kubelet_ca
from bundler.pki.ca_origins import ORIGIN, CaOrigin, is_signed_elsewhere, read_origin
from bundler.pki.rotation_stages import SERVICE_ACCOUNT
from bundler.pki.service_account import ensure_first_secrets
from bundler.state.directory import State
from bundler.state.transaction import write_transaction


def decide_signers(
    state: State, plan: ClusterPlan, now: datetime, *, cas: Collection[str], leaves: bool
) -> None:
    """Create the keys of externally signed CAs, and record who signs each CA.

    Raises PkiError if the state has recorded another choice, ConfigError for unknown names.
    """
    leaves = leaves or is_signed_elsewhere(state)
    _check_names(cas, plan, leaves=leaves)
    if leaves:
        expected = dict.fromkeys(declarations.list_site_ca_names(plan), CaOrigin.ELSEWHERE)
        expected |= dict.fromkeys(cas, CaOrigin.REQUESTED)
    else:
        chosen = cas or _choose_cas(state, plan)
        expected = dict.fromkeys(chosen, CaOrigin.REQUESTED)
    _check_unchanged(state, expected)
    ensure_first_secrets(state, plan, [])
    _ensure_directories(state, plan, expected)
    if leaves and read_origin(state.directory / "pki" / declarations.KUBELET_CA) is CaOrigin.MADE:
        ensure_kubelet_ca(None, state, plan, now=now, notes=[])


def _check_names(names: Collection[str], plan: ClusterPlan, *, leaves: bool) -> None:
    known = (declarations.KUBELET_CA,) if leaves else declarations.list_site_ca_names(plan)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--authority {name}: expected {' or '.join(known)}",
                hint="with --leaves, only the CA for kubelets can be requested in addition"
                if leaves
                else None,
            )


def _choose_cas(state: State, plan: ClusterPlan) -> tuple[str, ...]:
    """The CAs that were requested before; else all that were not imported."""
    root = state.directory / "pki"
    origins = {name: read_origin(root / name) for name in declarations.list_site_ca_names(plan)}
    asked = tuple(name for name, origin in origins.items() if origin is CaOrigin.REQUESTED)
    return asked or tuple(
        name for name, origin in origins.items() if origin is not CaOrigin.IMPORTED
    )


def _check_unchanged(state: State, expected: Mapping[str, CaOrigin]) -> None:
    """Refuse to change who signs a CA: all certificates of the cluster depend on it."""
    root = state.directory / "pki"
    others = {
        name: found
        for name, origin in expected.items()
        if (root / name).is_dir() and (found := read_origin(root / name)) is not origin
    }
    if others:
        what = {
            CaOrigin.MADE: "made by bundler",
            CaOrigin.IMPORTED: "imported from files",
            CaOrigin.REQUESTED: "an intermediate that is signed elsewhere",
            CaOrigin.ELSEWHERE: "a CA whose key is elsewhere",
        }
        raise PkiError(
            "\n".join(
                f"{root / name}: already exists ({what[origin]}); a CA is never replaced"
                for name, origin in others.items()
            ),
            hint="requests are for new clusters: choose a new, empty state directory with --state",
        )


def _ensure_directories(state: State, plan: ClusterPlan, expected: Mapping[str, CaOrigin]) -> None:
    root = state.directory / "pki"
    files: dict[str, bytes] = {}
    for name, origin in expected.items():
        if (root / name).is_dir():
            continue
        check_not_lost(root / name, after=(SERVICE_ACCOUNT, *declarations.list_ca_names(plan)))
        files[f"pki/{name}/{ORIGIN}"] = f"{origin}\n".encode()
        if origin is CaOrigin.REQUESTED:  # its key is made here
            key = issuing.make_key(plan.cluster.pki.key)
            files[f"pki/{name}/key.pem"] = issuing.encode_private_key(key)
    if files:
        write_transaction(state.directory, files)
