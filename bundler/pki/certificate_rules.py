"""Rules for external CA and leaf certificates, so that every program of a cluster accepts them.

The programs use Go's crypto/x509 (which refuses unknown critical extensions and checks usages along
the complete chain) and openssl.
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
from bundler.pki.extensions import find_extension
from bundler.pki.name_constraints import SUPPORTED_KINDS, check_name_constraints

CURVES = (ec.SECP256R1, ec.SECP384R1)
RSA_BITS = range(2048, 8193)  # Go's crypto/tls refuses larger keys since 1.21
SUPPORTED_KEYS = "ECDSA on P-256 or P-384, or RSA with 2048 to 8192 bits"
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
    """The usages and names that a CA has to sign in a cluster."""

    usages: frozenset[str]  # dotted
    names: tuple[declarations.SanName, ...]


def make_needs(plan: ClusterPlan, ca: str) -> Needs:
    """Collect the needs of the plan's certificates, and of kubelet certificates."""
    usages: set[str] = set()
    names: list[declarations.SanName] = []
    for spec in declarations.list_certificates(plan):
        if declarations.get_ca_name(spec, plan) == ca:
            for node in declarations.list_owners(spec, plan):
                content = declarations.make_content(spec, plan, node)
                usages |= set(content.usages)
                names += content.names
    if ca in {declarations.KUBERNETES_CA, declarations.KUBELET_CA}:
        usages |= set(USAGES)
        for node in plan.having(Role.WORKER):
            names += (node.name, node.address)
    return Needs(usages=frozenset(usages), names=tuple(dict.fromkeys(names)))


def check_ca(
    certificate: x509.Certificate,
    issuers: Collection[x509.Certificate],
    needs: Needs,
    now: datetime,
) -> Iterator[str]:
    """Yield every fault that prevents the certificate from being a CA of the cluster."""
    basic = find_extension(certificate, x509.BasicConstraints)
    usage = find_extension(certificate, x509.KeyUsage)
    extended = find_extension(certificate, x509.ExtendedKeyUsage)
    if not basic or not basic.ca:
        yield "it is not a CA (basicConstraints has no CA:TRUE)"
    if usage is not None and not usage.key_cert_sign:
        yield "it may not sign certificates (keyUsage has no keyCertSign)"
    if extended is not None and ANY_USAGE not in extended:
        missing = needs.usages - {found.dotted_string for found in extended}
        if missing:
            yield (
                f"its extendedKeyUsage does not have {_join_usages(missing)}, so clients refuse its"
                " certificates for that use (leave the extension out)"
            )
    yield from _check_common(certificate, now)
    yield from _check_constraints(certificate)
    yield from check_name_constraints((certificate, *issuers), needs.names)


def explain_shared_key(other: str) -> str:
    """The fault of a CA that has the same key as another CA of the cluster."""
    return (
        f"it has the same key as {other}, so certificates of one CA would be accepted for the other"
        " (to use one CA for everything, set `pki: {authorities: single}` in cluster.yaml)"
    )


def check_leaf(
    certificate: x509.Certificate, content: declarations.Content, now: datetime
) -> Iterator[str]:
    """Yield every difference between a signed certificate and what the plan requires."""
    basic = find_extension(certificate, x509.BasicConstraints)
    usage = find_extension(certificate, x509.KeyUsage)
    if basic is not None and basic.ca:
        yield "it must not be a CA (basicConstraints has CA:TRUE)"
    if usage is not None and usage.key_cert_sign:
        yield "it must not be able to sign certificates (keyUsage has keyCertSign)"
    if usage is not None and not usage.digital_signature:
        yield "its keyUsage does not have digitalSignature, which TLS requires"
    yield from _check_common(certificate, now)
    yield from _check_content(declarations.read_content(certificate), content)


def describe_usages(usages: Collection[str]) -> list[str]:
    """The usual names of usages, such as serverAuth."""
    return sorted(USAGES.get(usage, usage) for usage in usages)


def check_key(key: object) -> Iterator[str]:
    """Yield a fault if a version of Kubernetes or etcd does not accept this kind of key."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        is_good = isinstance(key.curve, CURVES)
    else:
        is_good = isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS
    if not is_good:
        yield f"its key is {_describe_key(key)}, which some programs refuse; use {SUPPORTED_KEYS}"


def _check_common(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    if certificate.not_valid_after_utc <= now:
        yield f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
    elif certificate.not_valid_before_utc > now:
        yield (
            f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC, but"
            f" the clock of this machine shows {now:%Y-%m-%d %H:%M:%S} UTC"
        )
    yield from check_key(_public_key(certificate))
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        yield "its key is for RSASSA-PSS only, which Go refuses; create a plain RSA key"
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, KNOWN_CRITICAL):
            yield (
                f"its extension {extension.oid.dotted_string} is critical; Go does not know it and"
                " refuses the certificate"
            )


def _check_constraints(certificate: x509.Certificate) -> Iterator[str]:
    constraints = find_extension(certificate, x509.NameConstraints)
    if not constraints:
        return
    for subtree in (
        *(constraints.permitted_subtrees or ()),
        *(constraints.excluded_subtrees or ()),
    ):
        if not isinstance(subtree, SUPPORTED_KINDS):
            yield "its name constraints have a kind that Go does not know and refuses"
            return


def _check_content(found: declarations.Content, wanted: declarations.Content) -> Iterator[str]:
    if found.common_name != wanted.common_name:
        yield (
            f"its common name is {found.common_name or 'empty'}, but must be {wanted.common_name}:"
            " Kubernetes uses it as the user name"
        )
    if found.organization != wanted.organization:
        yield (
            f"its organization is {found.organization or 'absent'}, but must be"
            f" {wanted.organization or 'absent'}: Kubernetes uses it as a group"
        )
    for verb, usages in (
        ("does not have", set(wanted.usages) - set(found.usages)),
        ("must not have", set(found.usages) - set(wanted.usages)),
    ):
        if usages:
            yield f"its extendedKeyUsage {verb} {_join_usages(usages)}"
    for verb, names in (
        ("does not have", set(wanted.names) - set(found.names)),
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
