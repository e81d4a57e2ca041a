"""The stage of a rotation, as recorded in the state directory (see rotation.py).

    pki/<ca>/                    the CA that signs
    pki/next/<ca>/               stage `trust`: trusted by all hosts, does not sign yet
    pki/previous/<ca>/cert.pem   stage `issue`: no longer signs, is still trusted

The service account key is in the same places, with pub.pem in place of cert.pem.

The rotation id, the start time of a rotation, distinguishes CAs of the same name. It is the OU of
the CA's subject. CAs of the first build have none.
"""

from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from bundler.errors import PkiError
from bundler.state.directory import RESTORE, State

SERVICE_ACCOUNT = "service-account"
NEXT = "next"
PREVIOUS = "previous"
NO_ROTATION_ID = "-"
"""The rotation id of CAs from the first build."""


class RotationStage(StrEnum):
    """The current stage of a rotation."""

    SETTLED = "settled"
    TRUST = "trust"
    ISSUE = "issue"


def read_stage(directory: Path) -> RotationStage:
    """Read the stage of a state directory; raises PkiError if the files match no stage."""
    found = {name: any((directory / "pki" / name).glob("*/*.pem")) for name in (NEXT, PREVIOUS)}
    if all(found.values()):
        raise PkiError(f"{directory / 'pki'}: has both {NEXT} and {PREVIOUS}", hint=RESTORE)
    if found[NEXT]:
        return RotationStage.TRUST
    return RotationStage.ISSUE if found[PREVIOUS] else RotationStage.SETTLED


def load_other_trusted_cas(name: str, state: State) -> tuple[x509.Certificate, ...]:
    """The CAs that are trusted in addition to the signing one: the next or the previous one."""
    paths = (state.directory / "pki" / stage / name / "cert.pem" for stage in (NEXT, PREVIOUS))
    return tuple(_load(path, state) for path in paths if path.exists())


def get_rotation_id(certificate: x509.Certificate) -> str:
    """The rotation id of a CA, from its OU."""
    values = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(values[0].value) if values else NO_ROTATION_ID


def _load(path: Path, state: State) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(state.read_file(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a certificate in PEM", hint=RESTORE) from error
