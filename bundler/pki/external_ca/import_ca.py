"""Import a CA certificate with its key; later its renewed certificate for the same key."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError, PkiError
from bundler.pki import declarations, issuing
from bundler.pki.ca_certificates import check_not_lost
from bundler.pki.ca_origins import CHAIN, ORIGIN, CaOrigin, encode_all, load_ca, read_origin
from bundler.pki.certificate_rules import check_ca, explain_shared_key, make_needs
from bundler.pki.chains import Chain, check_chain, find_chain, has_same_key, is_complete, is_renewal
from bundler.pki.external_ca.certificate_files import read_certificates, read_private_key
from bundler.pki.external_ca.import_report import ImportedCertificate, ImportReport, warn_of_ca
from bundler.pki.rotation_stages import SERVICE_ACCOUNT
from bundler.pki.service_account import ensure_first_secrets
from bundler.state.directory import State
from bundler.state.transaction import write_transaction

NEVER_REPLACED_HINT = (
    "an import never replaces a CA, because all certificates of the cluster depend on it; for a"
    " new cluster choose a new, empty state directory with --state; to import the renewed"
    " certificate of an imported CA (same key and name), omit --key"
)


def import_ca(
    state: State, plan: ClusterPlan, name: str, now: datetime, *,
    certificate: Path, key: Path | None, chain: Path | None, ask: Callable[[], str],
    dry_run: bool = False,
) -> ImportReport:  # fmt: skip
    """Import a CA from files, or its renewed certificate for the same key.

    `ask` returns the passphrase of an encrypted key; the state keeps the key decrypted, 0600. An
    existing CA is never replaced. Raises PkiError with every fault, ConfigError if the cluster has
    no such CA.
    """
    known = declarations.list_site_ca_names(plan)
    if name not in known:
        raise ConfigError(
            f"--authority {name}: expected {' or '.join(known)}",
            hint="pki.authorities in cluster.yaml selects three CAs or one",
        )
    directory = state.directory / "pki" / name
    if directory.is_dir():
        _check_replaceable(name, directory, has_key=key is not None)
    own, *above = read_certificates(certificate)
    issuers = find_chain(own, (*above, *(read_certificates(chain) if chain else ())), now)
    files = {"cert.pem": issuing.encode_certificate(own)}
    faults = [*check_ca(own, issuers, make_needs(plan, name), now)]
    faults += check_chain(own, issuers, now)
    faults += _list_shared_keys(name, own, state, plan)
    if directory.is_dir():
        if not is_renewal(own, load_ca(directory, state).certificate):
            faults.append(f"it is not a renewal of {name} in {directory}: {NEVER_REPLACED_HINT}")
    else:
        _check_new(directory, plan)
        files["key.pem"] = _read_key(name, key, own, ask, faults)
        files[ORIGIN] = f"{CaOrigin.IMPORTED}\n".encode()
    if faults:
        raise PkiError("\n".join(f"{certificate}: {fault}" for fault in dict.fromkeys(faults)))
    if not dry_run:
        ensure_first_secrets(state, plan, [])
        _write(state, directory, files, issuers)
    return ImportReport(
        imported=(ImportedCertificate(name=name, path=certificate, certificate=own),),
        roots=(own, *issuers)[-1:] if is_complete(own, issuers) else (),
        notes=tuple(warn_of_ca(name, own, issuers, plan, now)),
    )


def _check_replaceable(name: str, directory: Path, *, has_key: bool) -> None:
    origin = read_origin(directory)
    if origin is CaOrigin.IMPORTED and not has_key:
        return
    if origin in {CaOrigin.REQUESTED, CaOrigin.ELSEWHERE}:
        raise PkiError(
            f"{directory}: the certificate of {name} is signed on request",
            hint="import the signed files without --authority: bundler certs import FILE…",
        )
    raise PkiError(f"{directory}: {name} already exists", hint=NEVER_REPLACED_HINT)


def _check_new(directory: Path, plan: ClusterPlan) -> None:
    if directory.parent.is_dir():
        check_not_lost(directory, after=(SERVICE_ACCOUNT, *declarations.list_ca_names(plan)))


def _read_key(
    name: str, key: Path | None, own: x509.Certificate, ask: Callable[[], str], faults: list[str]
) -> bytes:
    """The private key as PEM for the state directory; its faults are added to `faults`."""
    if not key:
        raise ConfigError(f"--authority {name}: the private key is missing", hint="add --key PEM")
    try:
        private = read_private_key(key, ask)
    except PkiError as error:
        faults.append(error.message)
        return b""
    if private.public_key() != own.public_key():
        faults.append(f"{key} is not the key of this certificate")
    return issuing.encode_private_key(private)


def _list_shared_keys(
    name: str, own: x509.Certificate, state: State, plan: ClusterPlan
) -> Iterator[str]:
    root = state.directory / "pki"
    for other in declarations.list_ca_names(plan):
        if other != name and (root / other / "cert.pem").exists():
            present = load_ca(root / other, state).certificate
            if has_same_key(present, own):
                yield explain_shared_key(other)


def _write(state: State, directory: Path, files: dict[str, bytes], issuers: Chain) -> None:
    place = directory.relative_to(state.directory).as_posix()
    every = {f"{place}/{name}": content for name, content in files.items()}
    chain = f"{place}/{CHAIN}"
    if issuers:
        every[chain] = encode_all(issuers)
    write_transaction(state.directory, every, () if issuers else (chain,))
