"""Certificates that are signed elsewhere and not imported yet: a build needs them first."""

from collections.abc import Iterator
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import declarations
from bundler.pki.ca_origins import ORIGIN, CaOrigin, read_origin
from bundler.pki.key_pairs import leaf_directory

GET_SIGNED_HINT = (
    "have the requests signed (`bundler certs request -o DIR` writes them, also repeatedly), then"
    " import the signed certificates with `bundler certs import DIR`"
)
MAX_SHOWN = 8


def check_signed(state: Path, plan: ClusterPlan) -> None:
    """Raise PkiError with every certificate that is signed elsewhere and not imported yet."""
    pending = tuple(_list_pending(state / "pki", plan))
    if pending:
        raise PkiError(explain_pending(pending), hint=GET_SIGNED_HINT)


def explain_pending(titles: tuple[str, ...]) -> str:
    """The message that lists the certificates that are not imported yet."""
    more = f" and {len(titles) - MAX_SHOWN} more" if len(titles) > MAX_SHOWN else ""
    what = "1 certificate" if len(titles) == 1 else f"{len(titles)} certificates"
    names = ", ".join(titles[:MAX_SHOWN])
    return f"{what} that must be signed elsewhere: not imported yet: {names}{more}"


def _list_pending(root: Path, plan: ClusterPlan) -> Iterator[str]:
    for name in (*declarations.list_ca_names(plan), declarations.KUBELET_CA):
        if (root / name / ORIGIN).exists() and not (root / name / "cert.pem").exists():
            yield name
    if read_origin(root / declarations.KUBERNETES_CA) is CaOrigin.ELSEWHERE:
        for spec in declarations.list_site_certificates(plan):
            for node in declarations.list_owners(spec, plan):
                if not (leaf_directory(root, spec, node) / "cert.pem").exists():
                    yield f"{spec.name} of {node.name if node else 'the cluster'}"
