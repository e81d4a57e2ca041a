"""Import externally signed certificates: check them against the plan, write them into the state.

All faults are reported at once. Either everything is imported or nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import issuing
from bundler.pki.ca_origins import CHAIN, REQUEST, encode_all, load_ca
from bundler.pki.certificate_rules import check_ca, check_leaf, explain_shared_key, make_needs
from bundler.pki.chains import (
    Chain,
    check_chain,
    find_chain,
    has_same_key,
    is_ca,
    is_complete,
    is_renewal,
)
from bundler.pki.extensions import get_display_name
from bundler.pki.external_ca.certificate_files import (
    FoundCertificate,
    find_certificates,
    read_certificates,
)
from bundler.pki.external_ca.import_report import (
    ImportedCertificate,
    ImportReport,
    warn_of_ca,
    warn_of_leaf,
)
from bundler.pki.external_ca.requests import SigningRequest, list_outstanding
from bundler.state.directory import State
from bundler.state.transaction import write_transaction

SIGN_CORRECTLY_HINT = (
    "nothing was imported; have the wrong certificates signed again (request.json and NAME.ext of"
    " `bundler certs request` list what each must contain), then import all of them again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """A request, the signed certificate, and its issuers."""

    wanted: SigningRequest
    found: FoundCertificate
    chain: Chain


def import_signed(
    state: State, plan: ClusterPlan, paths: Sequence[Path], now: datetime, *,
    root: Path | None = None, dry_run: bool = False,
) -> ImportReport:  # fmt: skip
    """Import the certificates of all outstanding requests; file names do not matter.

    Each chain must end with a root: with `root`, if that is set. Raises PkiError with every fault.
    """
    wanted = list_outstanding(state, plan, now)
    if not wanted:
        raise PkiError(
            "there is nothing to import: no request is outstanding",
            hint="create requests with `bundler certs request -o DIR`",
        )
    found, faults = find_certificates(paths)
    roots = read_certificates(root) if root else ()
    pool = tuple(dict.fromkeys((*roots, *(one.certificate for one in found))))
    matches, unmatched = _match(wanted, found, pool, now)
    signers, mismatches = _find_issuing_cas(matches, state, plan, now)
    for match in matches:
        faults += _list_faults(match, state, plan, roots, now)
    faults += (*unmatched, *mismatches)
    if faults:
        raise PkiError("\n".join(dict.fromkeys(faults)), hint=SIGN_CORRECTLY_HINT)
    if not dry_run:
        files, removed = _make_change(matches, signers, state)
        write_transaction(state.directory, files, removed)
    return ImportReport(
        imported=tuple(
            ImportedCertificate(
                name=one.wanted.name, path=one.found.path, certificate=one.found.certificate
            )
            for one in matches
        ),
        roots=tuple(dict.fromkeys(_top(match) for match in matches)),
        notes=(
            *_list_notes(matches, signers, plan, now),
            *_list_unknown(found, matches),
        ),
    )


def _match(
    wanted: Sequence[SigningRequest],
    found: Sequence[FoundCertificate],
    pool: Collection[x509.Certificate],
    now: datetime,
) -> tuple[tuple[_Match, ...], list[str]]:
    """Match certificates to requests by key; return the matches, and a fault for each mismatch."""
    matched: list[_Match] = []
    faults = []
    for one in wanted:
        mine = {f.certificate: f for f in found if f.certificate.public_key() == one.key}
        if not mine:
            faults.append(f"{one.name}: no certificate has the key of its request")
        elif len(mine) > 1:
            files = ", ".join(str(f.path) for f in mine.values())
            faults.append(f"{one.name}: more than one certificate has its key ({files}): keep one")
        else:
            certificate, answer = next(iter(mine.items()))
            chain = find_chain(certificate, pool, now)
            matched.append(_Match(wanted=one, found=answer, chain=chain))
    return tuple(matched), faults


def _list_faults(
    match: _Match,
    state: State,
    plan: ClusterPlan,
    roots: Collection[x509.Certificate],
    now: datetime,
) -> Iterator[str]:
    wanted, certificate, chain = match.wanted, match.found.certificate, match.chain
    head = f"{match.found.path} ({wanted.name}): "
    if not wanted.ca:
        needs = make_needs(plan, wanted.name)
        for fault in check_ca(certificate, chain, needs, now):
            yield head + fault
        for fault in _list_changed(wanted.directory, certificate, state):
            yield head + fault
    else:
        for fault in check_leaf(certificate, wanted.content, now):
            yield head + fault
    for fault in check_chain(certificate, chain, now):
        yield head + fault
    if not is_complete(certificate, chain):
        yield (
            f"{head}the certificate of {_top(match).issuer.rfc4514_string()} is missing: import"
            " the complete chain up to the root"
        )
    elif not chain:
        yield f"{head}it is self-signed, not signed by your PKI"
    elif roots and chain[-1] not in roots:
        top = get_display_name(chain[-1])
        yield f"{head}its chain ends with {top}, which is not the certificate of --root"


def _top(match: _Match) -> x509.Certificate:
    return match.chain[-1] if match.chain else match.found.certificate


def _find_issuing_cas(
    matches: Iterable[_Match], state: State, plan: ClusterPlan, now: datetime
) -> tuple[dict[str, Chain], list[str]]:
    """Find the CA (and its issuers) that signs the leaves of each CA of the plan; and faults."""
    root = state.directory / "pki"
    signers: dict[str, Chain] = {}
    faults: list[str] = []
    for match in matches:
        name = match.wanted.ca
        if not name or not match.chain:
            continue
        known = signers.setdefault(name, match.chain)
        if known[0] != match.chain[0]:
            faults.append(
                f"{match.found.path} ({match.wanted.name}): signed by"
                f" {get_display_name(match.chain[0])}, but other certificates of {name} are signed"
                f" by {get_display_name(known[0])}: one CA must sign all of them"
            )
    for name, (ca, *above) in signers.items():
        head = f"{get_display_name(ca)}, which signs for {name}: "
        needs = make_needs(plan, name)
        faults += [head + fault for fault in check_ca(ca, above, needs, now)]
        faults += [head + fault for fault in _list_changed(root / name, ca, state)]
        for other, chain in signers.items():
            if other < name and has_same_key(chain[0], ca):
                faults.append(head + explain_shared_key(other))
    return signers, faults


def _list_changed(directory: Path, ca: x509.Certificate, state: State) -> Iterator[str]:
    """Yield a fault if the CA is not a renewal of the one in `directory`."""
    if (directory / "cert.pem").exists():
        present = load_ca(directory, state).certificate
        if not is_renewal(ca, present):
            yield (
                f"it is not the current CA {present.subject.rfc4514_string()}: hosts trust only"
                " that one, so the name and key of the CA must stay the same"
            )


def _make_change(
    matches: Iterable[_Match], signers: Mapping[str, Chain], state: State
) -> tuple[dict[str, bytes], list[str]]:
    """The files to write and the files to remove, by path in the state directory."""
    files: dict[str, bytes] = {}
    removed: list[str] = []
    for match in matches:
        place = match.wanted.directory.relative_to(state.directory).as_posix()
        files[f"{place}/cert.pem"] = issuing.encode_certificate(match.found.certificate)
        if not match.wanted.ca:
            files[f"{place}/{CHAIN}"] = encode_all(match.chain)
        removed.append(f"{place}/{REQUEST}")
    for name, (ca, *above) in signers.items():
        files[f"pki/{name}/cert.pem"] = issuing.encode_certificate(ca)
        if above:
            files[f"pki/{name}/{CHAIN}"] = encode_all(above)
        else:
            removed.append(f"pki/{name}/{CHAIN}")
    return files, removed


def _list_unknown(found: Sequence[FoundCertificate], matches: Sequence[_Match]) -> Iterator[str]:
    """Yield a note for each leaf that matches no request; extra CA certificates are harmless."""
    answers = {match.found.certificate for match in matches}
    for one in found:
        if one.certificate not in answers and not is_ca(one.certificate):
            name = get_display_name(one.certificate)
            yield f"{one.path}: {name} matches no request of this cluster"


def _list_notes(
    matches: Sequence[_Match], signers: Mapping[str, Chain], plan: ClusterPlan, now: datetime
) -> Iterator[str]:
    for match in matches:
        wanted, certificate = match.wanted, match.found.certificate
        if not wanted.ca:
            yield from warn_of_ca(wanted.name, certificate, match.chain, plan, now)
        else:
            yield from warn_of_leaf(wanted.name, certificate, signers[wanted.ca][0])
    for name, (ca, *above) in signers.items():
        yield from warn_of_ca(name, ca, tuple(above), plan, now)
