"""Read an extension of a certificate or request by its class, and names for messages."""

from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import NameOID

Value = TypeVar("Value", bound=x509.ExtensionType)


def find_extension(
    holder: x509.Certificate | x509.CertificateSigningRequest, kind: type[Value]
) -> Value | None:
    """The value of the extension of that kind, or None."""
    for extension in holder.extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None


def get_display_name(certificate: x509.Certificate) -> str:
    """The common name, or else the complete subject."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string() or "(no name)"
