"""How far the cluster's new authorities are, as the state directory has it (see rotation.py).

    pki/<authority>/                    who signs
    pki/next/<authority>/               believed by everybody, signs nothing yet: stage `trust`
    pki/previous/<authority>/cert.pem   signed until then, still believed: stage `issue`

Two authorities of one name are told apart by OU, the time at which a rotation began; those of a
cluster's first build have none.
"""

from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from bundler.errors import PkiError
from bundler.state.directory import RESTORE, State

NEXT = "next"
PREVIOUS = "previous"
FIRST = "-"
"""Stands for the unit of authorities that have none."""


class RotationStage(StrEnum):
    """Which stage of a rotation is the last that was begun."""

    SETTLED = "settled"
    TRUST = "trust"
    ISSUE = "issue"


def read_stage(directory: Path) -> RotationStage:
    """Of a state directory; PkiError where it holds what no stage leaves."""
    found = {name: any((directory / "pki" / name).glob("*/cert.pem")) for name in (NEXT, PREVIOUS)}
    if all(found.values()):
        raise PkiError(f"{directory / 'pki'}: both {NEXT} and {PREVIOUS} are there", hint=RESTORE)
    if found[NEXT]:
        return RotationStage.TRUST
    return RotationStage.ISSUE if found[PREVIOUS] else RotationStage.SETTLED


def load_beside(name: str, state: State) -> tuple[x509.Certificate, ...]:
    """Who is believed beside the authority that signs: the next one or the previous one."""
    paths = (state.directory / "pki" / stage / name / "cert.pem" for stage in (NEXT, PREVIOUS))
    return tuple(_load(path, state) for path in paths if path.exists())


def unit_of(certificate: x509.Certificate) -> str:
    """When its rotation began, as its OU says."""
    values = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(values[0].value) if values else FIRST


def _load(path: Path, state: State) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(state.read_file(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PkiError(f"{path}: not a certificate in PEM", hint=RESTORE) from error
