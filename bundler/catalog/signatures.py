"""Which upstreams sign what they publish, how, and where the signature lies: a row each.

Keys are not built in: a key in the tool would be believed because the tool is. Users say in
`upstream_keys` whom they believe.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Scheme(StrEnum):
    """A way to sign files."""

    OPENPGP = "openpgp"  # a detached signature beside the file
    COSIGN = "cosign"  # sigstore: a signature, and the short-lived certificate of its key
    SIGSTORE = "sigstore"  # a bundle of both, with the transparency log's proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """How a component's files are signed."""

    scheme: Scheme
    signature: str  # its URL; {url} is that of the file
    certificate: str = ""  # cosign's
    identity: str = ""  # whom the certificate must name
    issuer: str = ""  # who must have vouched for that identity
    since: str = "0.0.0"  # the first version that is signed so


# https://kubernetes.io/docs/tasks/administer-cluster/verify-signed-artifacts
_KUBERNETES = Signed(
    scheme=Scheme.COSIGN, signature="{url}.sig", certificate="{url}.cert",
    identity="krel-staging@k8s-releng-prod.iam.gserviceaccount.com",
    issuer="https://accounts.google.com", since="1.26.0",
)  # fmt: skip

SIGNED: dict[str, tuple[Signed, ...]] = {
    # https://github.com/opencontainers/runc#release-signing: .asc beside each file; runc.keyring
    "runc": (Signed(scheme=Scheme.OPENPGP, signature="{url}.asc"),),
    "kubernetes-server": (_KUBERNETES,),
    "kubernetes-node": (_KUBERNETES,),
}

USUAL = {
    Scheme.OPENPGP: Signed(scheme=Scheme.OPENPGP, signature="{url}.asc"),
    Scheme.COSIGN: Signed(scheme=Scheme.COSIGN, signature="{url}.sig", certificate="{url}.cert"),
    Scheme.SIGSTORE: Signed(scheme=Scheme.SIGSTORE, signature="{url}.sigstore.json"),
}
"""Where signatures usually lie, for components without a row."""


def find_signed(component: str, version: str, scheme: Scheme) -> Signed | None:
    """How that version is signed; None where its upstream began to sign so with a later one."""
    rows = [row for row in SIGNED.get(component, ()) if row.scheme is scheme]
    if not rows:
        whose = next((row for row in SIGNED.get(component, ()) if row.identity), USUAL[scheme])
        return replace(USUAL[scheme], identity=whose.identity, issuer=whose.issuer)
    return next((row for row in rows if _parts(row.since) <= _parts(version)), None)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
