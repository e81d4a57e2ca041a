"""What a build cannot begin without: certificates that others sign and that are not here yet."""

from collections.abc import Iterator
from pathlib import Path

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import declarations
from bundler.pki.external_ca.origins import ORIGIN, CaOrigin, read_origin
from bundler.pki.key_pairs import leaf_directory

HAVE_SIGNED = (
    "have the requests signed (`bundler certs request -o DIR` writes them, as often as you like),"
    " then take what comes back with `bundler certs import DIR`"
)
SHOWN = 8


def check_signed(state: Path, plan: ClusterPlan) -> None:
    """Raise PkiError, naming all, if the state waits for certificates that others sign."""
    lacking = tuple(_list_lacking(state / "pki", plan))
    if lacking:
        raise PkiError(explain_lacking(lacking), hint=HAVE_SIGNED)


def explain_lacking(titles: tuple[str, ...]) -> str:
    """What is waited for, for people."""
    more = f" and {len(titles) - SHOWN} more" if len(titles) > SHOWN else ""
    what = "a certificate that is" if len(titles) == 1 else f"{len(titles)} certificates that are"
    return f"the cluster waits for {what} signed elsewhere: {', '.join(titles[:SHOWN])}{more}"


def _list_lacking(root: Path, plan: ClusterPlan) -> Iterator[str]:
    for name in (*declarations.list_authorities(plan), declarations.KUBELET_CA):
        if (root / name / ORIGIN).exists() and not (root / name / "cert.pem").exists():
            yield name
    if read_origin(root / declarations.KUBERNETES_CA) is CaOrigin.ELSEWHERE:
        for spec in declarations.list_certificates(plan):
            for node in declarations.list_owners(spec, plan):
                if not (leaf_directory(root, spec, node) / "cert.pem").exists():
                    yield f"{spec.name} of {node.name if node else 'the cluster'}"
