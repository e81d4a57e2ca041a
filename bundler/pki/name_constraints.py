"""Name constraints: the names that certificates below a CA may have.

They are read as by Go's crypto/x509 (RFC 5280, 4.2.1.10): an exclusion wins; a kind of name without
constraints is allowed; a DNS constraint matches the domain and its subdomains, one that begins with
a dot only the subdomains.
"""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network

from cryptography import x509

from bundler.pki.declarations import SanName
from bundler.pki.extensions import find_extension, get_display_name

SUPPORTED_KINDS = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
"""Kinds that Go supports; it refuses a critical extension with any other kind."""


def check_name_constraints(
    cas: Collection[x509.Certificate], names: Collection[SanName]
) -> Iterator[str]:
    """Yield a fault for each CA whose constraints refuse one of the names."""
    for ca in cas:
        constraints = find_extension(ca, x509.NameConstraints)
        if not constraints:
            continue
        refused = [str(name) for name in names if not _is_allowed(name, constraints)]
        if refused:
            yield (
                f"the name constraints of {get_display_name(ca)} refuse"
                f" {', '.join(dict.fromkeys(refused))}, which the cluster's certificates need"
            )


def _is_allowed(name: SanName, constraints: x509.NameConstraints) -> bool:
    permitted = _of_kind(name, constraints.permitted_subtrees)
    excluded = _of_kind(name, constraints.excluded_subtrees)
    if any(_is_within(name, subtree) for subtree in excluded):
        return False
    return not permitted or any(_is_within(name, subtree) for subtree in permitted)


def _of_kind(name: SanName, subtrees: Collection[x509.GeneralName] | None) -> list[object]:
    kind = x509.IPAddress if isinstance(name, IPv4Address) else x509.DNSName
    return [subtree.value for subtree in subtrees or () if isinstance(subtree, kind)]


def _is_within(name: SanName, subtree: object) -> bool:
    if isinstance(name, IPv4Address):
        return isinstance(subtree, IPv4Network) and name in subtree
    constraint, text = str(subtree).lower(), name.lower()
    if constraint.startswith("."):
        return text.endswith(constraint)
    return constraint in {"", text} or text.endswith(f".{constraint}")
