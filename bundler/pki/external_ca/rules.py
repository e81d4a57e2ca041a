"""What an authority and a leaf must be, so that every program of a cluster takes them.

The programs are Go's (crypto/x509: extensions that it does not know must not be critical; usages
are checked down the whole chain) and openssl.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID

from bundler.cluster.plan import ClusterPlan
from bundler.cluster.schema import Role
from bundler.pki import declarations
from bundler.pki.external_ca.constraints import UNDERSTOOD, list_refused_names
from bundler.pki.external_ca.extensions import find_extension

CURVES = (ec.SECP256R1, ec.SECP384R1)
RSA_BITS = range(2048, 8193)  # Go's crypto/tls takes no larger ones since 1.21
KEYS = "ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits"
KNOWN_CRITICAL = (
    x509.AuthorityKeyIdentifier,
    x509.BasicConstraints,
    x509.CRLDistributionPoints,
    x509.CertificatePolicies,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.NameConstraints,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
)
USAGES = {
    declarations.SERVER.dotted_string: "serverAuth",
    declarations.CLIENT.dotted_string: "clientAuth",
}
ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an authority will have to sign in a cluster."""

    usages: frozenset[str]  # dotted
    names: tuple[declarations.SanName, ...]


def make_needs(plan: ClusterPlan, authority: str) -> Needs:
    """Of the plan's certificates, and of kubelets', which are signed in the cluster."""
    usages: set[str] = set()
    names: list[declarations.SanName] = []
    for spec in declarations.list_certificates(plan):
        if declarations.authority_of(spec, plan) == authority:
            for node in declarations.list_owners(spec, plan):
                content = declarations.make_content(spec, plan, node)
                usages |= set(content.usages)
                names += content.names
    if authority in {declarations.KUBERNETES_CA, declarations.KUBELET_CA}:
        usages |= set(USAGES)
        for node in plan.having(Role.WORKER):
            names += (node.name, node.address)
    return Needs(usages=frozenset(usages), names=tuple(dict.fromkeys(names)))


def check_authority(
    certificate: x509.Certificate,
    issuers: Collection[x509.Certificate],
    needs: Needs,
    now: datetime,
) -> Iterator[str]:
    """Every reason why it cannot be an authority of the cluster."""
    basic = find_extension(certificate, x509.BasicConstraints)
    usage = find_extension(certificate, x509.KeyUsage)
    extended = find_extension(certificate, x509.ExtendedKeyUsage)
    if basic is None or not basic.ca:
        yield "it is no authority (basicConstraints has no CA:TRUE)"
    if usage is not None and not usage.key_cert_sign:
        yield "it may not sign certificates (keyUsage has no keyCertSign)"
    if extended is not None and ANY_USAGE not in extended:
        lacking = needs.usages - {found.dotted_string for found in extended}
        if lacking:
            yield (
                f"its extendedKeyUsage lacks {_join_usages(lacking)}: nothing that it signs would"
                " be taken for that (leave the extension out)"
            )
    yield from _check_common(certificate, now)
    yield from _check_constraints(certificate)
    yield from list_refused_names((certificate, *issuers), needs.names)


def explain_twin(other: str) -> str:
    """Why one authority cannot be two of the cluster's."""
    return (
        f"it is the same as {other}: whoever has a certificate of the one would pass for one of the"
        " other (`pki: {authorities: single}` in cluster.yaml asks for just that)"
    )


def check_leaf(
    certificate: x509.Certificate, content: declarations.Content, now: datetime
) -> Iterator[str]:
    """Every way in which a signed certificate is not what the plan asked for."""
    basic = find_extension(certificate, x509.BasicConstraints)
    usage = find_extension(certificate, x509.KeyUsage)
    if basic is not None and basic.ca:
        yield "it is an authority (basicConstraints has CA:TRUE), but must not be one"
    if usage is not None and usage.key_cert_sign:
        yield "it may sign certificates (keyUsage has keyCertSign), but must not"
    if usage is not None and not usage.digital_signature:
        yield "its keyUsage lacks digitalSignature, without which TLS does not take it"
    yield from _check_common(certificate, now)
    yield from _check_content(declarations.read_content(certificate), content)


def describe_usages(usages: Collection[str]) -> list[str]:
    """As openssl and people call them."""
    return sorted(USAGES.get(usage, usage) for usage in usages)


def check_key(key: object) -> Iterator[str]:
    """Whether Kubernetes and etcd of every version take a key of this kind."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        is_good = isinstance(key.curve, CURVES)
    else:
        is_good = isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS
    if not is_good:
        yield f"its key is {_describe_key(key)}, which not every program here takes: {KEYS}"


def _check_common(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    if certificate.not_valid_after_utc <= now:
        yield f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
    elif certificate.not_valid_before_utc > now:
        yield (
            f"it is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC only, and"
            f" this machine's clock says {now:%Y-%m-%d %H:%M:%S}"
        )
    yield from check_key(_public_key(certificate))
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        yield "its key is for RSASSA-PSS alone, which Go does not take: make a plain RSA key"
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, KNOWN_CRITICAL):
            yield (
                f"its extension {extension.oid.dotted_string} is critical, and Go, which does not"
                " know it, would refuse the certificate"
            )


def _check_constraints(certificate: x509.Certificate) -> Iterator[str]:
    constraints = find_extension(certificate, x509.NameConstraints)
    if constraints is None:
        return
    for subtree in (
        *(constraints.permitted_subtrees or ()),
        *(constraints.excluded_subtrees or ()),
    ):
        if not isinstance(subtree, UNDERSTOOD):
            yield "its name constraints are of a kind that Go does not know and refuses"
            return


def _check_content(found: declarations.Content, wanted: declarations.Content) -> Iterator[str]:
    if found.common_name != wanted.common_name:
        yield (
            f"its common name is {found.common_name or 'empty'}, but must be {wanted.common_name}:"
            " Kubernetes takes it for the user's name"
        )
    if found.organization != wanted.organization:
        yield (
            f"its organization is {found.organization or 'absent'}, but must be"
            f" {wanted.organization or 'absent'}: Kubernetes takes it for a group"
        )
    for verb, usages in (
        ("lacks", set(wanted.usages) - set(found.usages)),
        ("must not have", set(found.usages) - set(wanted.usages)),
    ):
        if usages:
            yield f"its extendedKeyUsage {verb} {_join_usages(usages)}"
    for verb, names in (
        ("lacks", set(wanted.names) - set(found.names)),
        ("must not have", set(found.names) - set(wanted.names)),
    ):
        if names:
            yield f"its subjectAltName {verb} {', '.join(sorted(map(str, names)))}"


def _join_usages(usages: Collection[str]) -> str:
    return ", ".join(describe_usages(usages))


def _public_key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _describe_key(key: object) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA on {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey") if key else "of an unknown kind"
