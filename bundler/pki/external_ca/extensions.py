"""Extensions of certificates and requests, by their class; and names for people."""

from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import NameOID

Value = TypeVar("Value", bound=x509.ExtensionType)


def find_extension(
    holder: x509.Certificate | x509.CertificateSigningRequest, kind: type[Value]
) -> Value | None:
    """The value of its extension of that kind, if it has one."""
    for extension in holder.extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None


def name_of(certificate: x509.Certificate) -> str:
    """The common name, or the whole subject where there is none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string() or "(no name)"
