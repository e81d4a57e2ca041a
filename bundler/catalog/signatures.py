"""How upstream projects sign their files, and the URLs of the signatures: a row for each.

No keys are built in: they would be only as trustworthy as the copy of bundler. Users name the keys
that they trust in `upstream_keys`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from bundler.catalog import KUBERNETES_PROGRAMS


class Scheme(StrEnum):
    """A way to sign files."""

    OPENPGP = "openpgp"  # a detached signature next to the file
    COSIGN = "cosign"  # a signature, and the short-lived certificate of its key
    SIGSTORE = "sigstore"  # a bundle of both, with proof of the entry in the transparency log


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """How a component's files are signed."""

    scheme: Scheme
    signature: str  # its URL; {url} stands for the URL of the file
    certificate: str = ""  # cosign's
    identity: str = ""  # the identity that the certificate must name
    issuer: str = ""  # the OpenID Connect issuer that confirmed the identity
    since: str = "0.0.0"  # the first version that is signed this way


# https://kubernetes.io/docs/tasks/administer-cluster/verify-signed-artifacts
_KUBERNETES = Signed(
    scheme=Scheme.COSIGN, signature="{url}.sig", certificate="{url}.cert",
    identity="krel-staging@k8s-releng-prod.iam.gserviceaccount.com",
    issuer="https://accounts.google.com", since="1.26.0",
)  # fmt: skip

SIGNED: dict[str, tuple[Signed, ...]] = {
    # https://github.com/opencontainers/runc#release-signing: FILE.asc for each file; runc.keyring
    "runc": (Signed(scheme=Scheme.OPENPGP, signature="{url}.asc"),),
    "kubernetes-server": (_KUBERNETES,),
    "kubernetes-node": (_KUBERNETES,),
    **dict.fromkeys(KUBERNETES_PROGRAMS, (_KUBERNETES,)),
}

USUAL = {
    Scheme.OPENPGP: Signed(scheme=Scheme.OPENPGP, signature="{url}.asc"),
    Scheme.COSIGN: Signed(scheme=Scheme.COSIGN, signature="{url}.sig", certificate="{url}.cert"),
    Scheme.SIGSTORE: Signed(scheme=Scheme.SIGSTORE, signature="{url}.sigstore.json"),
}
"""The usual URLs of signatures, for components without a row."""


def find_signed(component: str, version: str, scheme: Scheme) -> Signed | None:
    """How that version is signed; None if upstream started to sign with a later version."""
    rows = [row for row in SIGNED.get(component, ()) if row.scheme is scheme]
    if not rows:
        named = next((row for row in SIGNED.get(component, ()) if row.identity), USUAL[scheme])
        return replace(USUAL[scheme], identity=named.identity, issuer=named.issuer)
    return next((row for row in rows if _parts(row.since) <= _parts(version)), None)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
