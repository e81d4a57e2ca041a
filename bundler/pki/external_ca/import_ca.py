"""An authority that is given as files, key and all; later its certificate, when it was renewed."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.external_ca.chains import (
    Chain,
    find_chain,
    has_same_key,
    is_renewal,
    is_whole,
    list_faults,
)
from bundler.pki.external_ca.origins import (
    CHAIN,
    ORIGIN,
    CaOrigin,
    encode_all,
    load_authority,
    read_origin,
)
from bundler.pki.external_ca.reading import read_certificates, read_private_key
from bundler.pki.external_ca.report import ImportedCertificate, ImportReport, note_authority
from bundler.pki.external_ca.rules import check_authority, explain_twin, make_needs
from bundler.pki.store import SERVICE_ACCOUNT, check_not_lost, ensure_beginnings
from bundler.state.directory import State
from bundler.state.transaction import write_together

NEVER_REPLACED = (
    "an authority is never replaced, as all certificates of the cluster hang on it: for a new"
    " cluster name a new, empty state directory with --state; a renewed certificate, for the same"
    " key and name, of one that was given as files is taken without --key"
)


def import_authority(
    state: State, plan: ClusterPlan, name: str, now: datetime, *,
    certificate: Path, key: Path | None, chain: Path | None, ask: Callable[[], str],
    dry_run: bool = False,
) -> ImportReport:  # fmt: skip
    """Take an authority that is given as files, or its renewed certificate for the same key.

    `ask` is called for the passphrase of an encrypted key, which is kept decrypted, 0600. An
    authority that is there is never replaced. Raises PkiError with every fault, ConfigError where
    the cluster has no such authority.
    """
    if name not in declarations.list_authorities(plan):
        raise ConfigError(
            f"--authority {name}: expected {' or '.join(declarations.list_authorities(plan))}",
            hint="`pki.authorities` in cluster.yaml says whether there are three or one",
        )
    directory = state.directory / "pki" / name
    if directory.is_dir():
        _check_replaceable(name, directory, has_key=key is not None)
    own, *above = read_certificates(certificate)
    issuers = find_chain(own, (*above, *(read_certificates(chain) if chain else ())), now)
    files = {"cert.pem": issuing.encode_certificate(own)}
    faults = [*check_authority(own, issuers, make_needs(plan, name), now)]
    faults += list_faults(own, issuers, now)
    faults += _list_twins(name, own, state, plan)
    if directory.is_dir():
        if not is_renewal(own, load_authority(directory, state).certificate):
            faults.append(f"it is not {name} of {directory} renewed: {NEVER_REPLACED}")
    else:
        _check_new(directory, plan)
        files["key.pem"] = _read_key(name, key, own, ask, faults)
        files[ORIGIN] = f"{CaOrigin.IMPORTED}\n".encode()
    if faults:
        raise PkiError("\n".join(f"{certificate}: {fault}" for fault in dict.fromkeys(faults)))
    if not dry_run:
        ensure_beginnings(state, plan, [])
        _write(state, directory, files, issuers)
    return ImportReport(
        taken=(ImportedCertificate(name=name, path=certificate, certificate=own),),
        roots=(own, *issuers)[-1:] if is_whole(own, issuers) else (),
        notes=tuple(note_authority(name, own, issuers, plan, now)),
    )


def _check_replaceable(name: str, directory: Path, *, has_key: bool) -> None:
    origin = read_origin(directory)
    if origin is CaOrigin.IMPORTED and not has_key:
        return
    if origin in {CaOrigin.REQUESTED, CaOrigin.ELSEWHERE}:
        raise PkiError(
            f"{directory}: the certificate of {name} comes by a request",
            hint="give the files that came back without --authority: bundler certs import FILE…",
        )
    raise PkiError(f"{directory}: {name} is there already", hint=NEVER_REPLACED)


def _check_new(directory: Path, plan: ClusterPlan) -> None:
    if directory.parent.is_dir():
        check_not_lost(directory, after=(SERVICE_ACCOUNT, *declarations.list_authorities(plan)))


def _read_key(
    name: str, key: Path | None, own: x509.Certificate, ask: Callable[[], str], faults: list[str]
) -> bytes:
    """Its private key as the state keeps it; what is wrong with it is added to `faults`."""
    if key is None:
        raise ConfigError(f"--authority {name}: its private key is needed, too: give --key")
    try:
        private = read_private_key(key, ask)
    except PkiError as error:
        faults.append(error.message)
        return b""
    if private.public_key() != own.public_key():
        faults.append(f"{key} is not its key")
    return issuing.encode_private_key(private)


def _list_twins(name: str, own: x509.Certificate, state: State, plan: ClusterPlan) -> Iterator[str]:
    root = state.directory / "pki"
    for other in declarations.list_authorities(plan):
        if other != name and (root / other / "cert.pem").exists():
            present = load_authority(root / other, state).certificate
            if has_same_key(present, own):
                yield explain_twin(other)


def _write(state: State, directory: Path, files: dict[str, bytes], issuers: Chain) -> None:
    place = directory.relative_to(state.directory).as_posix()
    every = {f"{place}/{name}": content for name, content in files.items()}
    chain = f"{place}/{CHAIN}"
    if issuers:
        every[chain] = encode_all(issuers)
    write_together(state.directory, every, () if issuers else (chain,))
