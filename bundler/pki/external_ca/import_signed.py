"""What others signed, checked against the plan and put into the state.

All faults are told at once, and either everything is taken or nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from bundler.cluster.plan import ClusterPlan
from bundler.errors import PkiError
from bundler.pki import issuing
from bundler.pki.external_ca.chains import (
    Chain,
    find_chain,
    has_same_key,
    is_authority,
    is_renewal,
    is_whole,
    list_faults,
)
from bundler.pki.external_ca.extensions import name_of
from bundler.pki.external_ca.origins import (
    CHAIN,
    REQUEST,
    encode_all,
    load_authority,
)
from bundler.pki.external_ca.reading import FoundCertificate, find_certificates, read_certificates
from bundler.pki.external_ca.report import (
    ImportedCertificate,
    ImportReport,
    note_authority,
    note_leaf,
)
from bundler.pki.external_ca.requests import SigningRequest, list_outstanding
from bundler.pki.external_ca.rules import (
    check_authority,
    check_leaf,
    explain_twin,
    make_needs,
)
from bundler.state.directory import State
from bundler.state.transaction import write_together

ASK_ANEW = (
    "have what is wrong signed anew (request.json and NAME.ext of `bundler certs request` say what"
    " each must be), and import all again: nothing was taken"
)
"""The fix of most faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """A request, the certificate that came back, and those above it."""

    wanted: SigningRequest
    found: FoundCertificate
    chain: Chain


def import_signed(
    state: State, plan: ClusterPlan, paths: Sequence[Path], now: datetime, *,
    root: Path | None = None, dry_run: bool = False,
) -> ImportReport:  # fmt: skip
    """Take the certificates for all outstanding requests, whatever their files are called.

    Chains must end with a root, which is `root` if that is given. Raises PkiError with every fault.
    """
    wanted = list_outstanding(state, plan, now)
    if not wanted:
        raise PkiError(
            "no request is outstanding: there is nothing to import",
            hint="`bundler certs request -o DIR` makes requests",
        )
    found, faults = find_certificates(paths)
    roots = read_certificates(root) if root else ()
    pool = tuple(dict.fromkeys((*roots, *(one.certificate for one in found))))
    matches, unmatched = _match(wanted, found, pool, now)
    signers, at_odds = _find_issuing(matches, state, plan, now)
    for match in matches:
        faults += _list_faults(match, state, plan, roots, now)
    faults += (*unmatched, *at_odds)
    if faults:
        raise PkiError("\n".join(dict.fromkeys(faults)), hint=ASK_ANEW)
    if not dry_run:
        files, removed = _make_change(matches, signers, state)
        write_together(state.directory, files, removed)
    return ImportReport(
        taken=tuple(
            ImportedCertificate(
                name=one.wanted.name, path=one.found.path, certificate=one.found.certificate
            )
            for one in matches
        ),
        roots=tuple(dict.fromkeys(_top(match) for match in matches)),
        notes=(
            *_list_notes(matches, signers, plan, now),
            *_list_strangers(found, matches),
        ),
    )


def _match(
    wanted: Sequence[SigningRequest],
    found: Sequence[FoundCertificate],
    pool: Collection[x509.Certificate],
    now: datetime,
) -> tuple[tuple[_Match, ...], list[str]]:
    """By their keys, whatever the files' names; and what is lacking or there twice."""
    matched: list[_Match] = []
    faults = []
    for one in wanted:
        mine = {f.certificate: f for f in found if f.certificate.public_key() == one.key}
        if not mine:
            faults.append(f"{one.name}: none of the certificates is for the key of its request")
        elif len(mine) > 1:
            files = ", ".join(str(f.path) for f in mine.values())
            faults.append(f"{one.name}: more than one certificate for its key ({files}): leave one")
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
    if wanted.authority is None:
        needs = make_needs(plan, wanted.name)
        for fault in check_authority(certificate, chain, needs, now):
            yield head + fault
        for fault in _list_changed(wanted.directory, certificate, state):
            yield head + fault
    else:
        for fault in check_leaf(certificate, wanted.content, now):
            yield head + fault
    for fault in list_faults(certificate, chain, now):
        yield head + fault
    if not is_whole(certificate, chain):
        yield (
            f"{head}the certificate of {_top(match).issuer.rfc4514_string()} is lacking: give all"
            " up to the root"
        )
    elif not chain:
        yield f"{head}it is signed by its own key, not by your PKI"
    elif roots and chain[-1] not in roots:
        yield f"{head}its chain ends with {name_of(chain[-1])}, which is not the one of --root"


def _top(match: _Match) -> x509.Certificate:
    return match.chain[-1] if match.chain else match.found.certificate


def _find_issuing(
    matches: Iterable[_Match], state: State, plan: ClusterPlan, now: datetime
) -> tuple[dict[str, Chain], list[str]]:
    """Which authority signs the leaves of each of the plan's, with those above it; and faults."""
    root = state.directory / "pki"
    signers: dict[str, Chain] = {}
    faults: list[str] = []
    for match in matches:
        name = match.wanted.authority
        if name is None or not match.chain:
            continue
        known = signers.setdefault(name, match.chain)
        if known[0] != match.chain[0]:
            faults.append(
                f"{match.found.path} ({match.wanted.name}): signed by {name_of(match.chain[0])},"
                f" but others of {name} by {name_of(known[0])}: one authority must sign them all"
            )
    for name, (authority, *above) in signers.items():
        head = f"{name_of(authority)}, which signs for {name}: "
        needs = make_needs(plan, name)
        faults += [head + fault for fault in check_authority(authority, above, needs, now)]
        faults += [head + fault for fault in _list_changed(root / name, authority, state)]
        for other, chain in signers.items():
            if other < name and has_same_key(chain[0], authority):
                faults.append(head + explain_twin(other))
    return signers, faults


def _list_changed(directory: Path, authority: x509.Certificate, state: State) -> Iterator[str]:
    """A renewed certificate of the same authority is well; another authority is not."""
    if (directory / "cert.pem").exists():
        present = load_authority(directory, state).certificate
        if not is_renewal(authority, present):
            yield (
                f"until now it was {present.subject.rfc4514_string()}, and hosts believe no other:"
                " name and key of an authority must stay"
            )


def _make_change(
    matches: Iterable[_Match], signers: Mapping[str, Chain], state: State
) -> tuple[dict[str, bytes], list[str]]:
    """The files to write and to remove, by their paths in the state."""
    files: dict[str, bytes] = {}
    removed: list[str] = []
    for match in matches:
        place = match.wanted.directory.relative_to(state.directory).as_posix()
        files[f"{place}/cert.pem"] = issuing.encode_certificate(match.found.certificate)
        if match.wanted.authority is None:
            files[f"{place}/{CHAIN}"] = encode_all(match.chain)
        removed.append(f"{place}/{REQUEST}")
    for name, (authority, *above) in signers.items():
        files[f"pki/{name}/cert.pem"] = issuing.encode_certificate(authority)
        if above:
            files[f"pki/{name}/{CHAIN}"] = encode_all(above)
        else:
            removed.append(f"pki/{name}/{CHAIN}")
    return files, removed


def _list_strangers(found: Sequence[FoundCertificate], matches: Sequence[_Match]) -> Iterator[str]:
    """Certificates that answer no request; that authorities too many are given does no harm."""
    answers = {match.found.certificate for match in matches}
    for one in found:
        if one.certificate not in answers and not is_authority(one.certificate):
            yield f"{one.path}: {name_of(one.certificate)} answers no request of this cluster"


def _list_notes(
    matches: Sequence[_Match], signers: Mapping[str, Chain], plan: ClusterPlan, now: datetime
) -> Iterator[str]:
    for match in matches:
        wanted, certificate = match.wanted, match.found.certificate
        if wanted.authority is None:
            yield from note_authority(wanted.name, certificate, match.chain, plan, now)
        else:
            yield from note_leaf(wanted.name, certificate, signers[wanted.authority][0])
    for name, (authority, *above) in signers.items():
        yield from note_authority(name, authority, tuple(above), plan, now)
