"""`bundler certs request` and `bundler certs import`: an external CA signs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives import hashes

from bundler import log
from bundler.cli.complete import complete_authority
from bundler.cli.json_output import Value, print_json
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Json,
    NewState,
    Pins,
    State,
    ask_secret,
    make_inputs,
    shown,
)
from bundler.errors import ConfigError
from bundler.pki.external_ca.csr_files import INDEX, get_request_digest, write_requests
from bundler.pki.external_ca.import_ca import import_ca
from bundler.pki.external_ca.import_report import ImportReport
from bundler.pki.external_ca.import_signed import import_signed
from bundler.pki.external_ca.requests import ensure_requests
from bundler.project import check, check_state
from bundler.state.directory import State as StateDirectory
from bundler.state.directory import open_state

RequestOutput = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="The directory to write: new, empty, or of earlier requests."
    ),
]
RequestedCas = Annotated[
    list[str] | None,
    typer.Option(
        "--authority",
        metavar="NAME",
        help="Only this CA (kubernetes-ca, etcd-ca, front-proxy-ca); bundler makes the others"
        " itself. With --leaves: kubelet-ca, in addition to all certificates. May be repeated.",
        autocompletion=complete_authority,
    ),
]
Leaves = Annotated[
    bool,
    typer.Option(
        "--leaves",
        help="Write a request for each certificate of the cluster, so that no CA key is ever on"
        " the builder. Read docs/guides/external-ca.md first.",
    ),
]
Everything = Annotated[
    bool,
    typer.Option(
        "--all", help="Include certificates that are signed already, to renew them; same keys."
    ),
]


def request_command(
    output: RequestOutput = Path("requests"),
    cas: RequestedCas = None,
    leaves: Leaves = False,
    everything: Everything = False,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
    new_state: NewState = False,
    as_json: Json = False,
) -> None:
    """Write certificate signing requests (CSRs) for an external CA.

    Creates the keys in the state directory, where they stay. Writes NAME.csr, NAME.ext (the
    extensions, for openssl), README.txt (the commands for the person who signs) and request.json.
    By default it requests three intermediate CAs, with which bundler then signs.

    Running it again writes the same requests until `bundler certs import` has imported the signed
    certificates. Until then `bundler build` refuses to run.
    """
    now = datetime.now(UTC)
    project = check(make_inputs(config, pins=pins, state=state, new_state=new_state))
    may_create = check_state(project)
    with open_state(project.state_path, create=may_create) as opened:
        wanted = ensure_requests(
            opened,
            project.plan,
            now,
            cas=tuple(cas or ()),
            leaves=leaves,
            again=everything,
        )
        if wanted:
            write_requests(wanted, project.plan, output)
    if as_json:
        index = json.loads((output / INDEX).read_bytes()) if wanted else {"requests": []}
        print_json("certs-request", **index)
        return
    if not wanted:
        log.info("every certificate is signed: there is nothing to request (--all renews them)")
    for one in wanted:
        log.result(f"{get_request_digest(one)}  {shown(output / f'{one.name}.csr')}")
    if wanted:
        log.info(f"Next: take {shown(output)} to the CA; its README.txt has the commands")


SignedFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE|DIRECTORY…",
        help="Signed certificates and the CAs above them (PEM, DER or PKCS#7), with any names.",
    ),
]
RootCa = Annotated[
    Path | None,
    typer.Option("--root", metavar="PEM", help="The root CA that every chain must end with."),
]
ImportedCa = Annotated[
    str | None,
    typer.Option(
        "--authority",
        metavar="NAME",
        help="Import this CA with its key (--cert and --key).",
        autocompletion=complete_authority,
    ),
]
CaCertificate = Annotated[
    Path | None, typer.Option("--cert", metavar="PEM", help="The certificate of that CA.")
]
CaKey = Annotated[
    Path | None, typer.Option("--key", metavar="PEM", help="The private key of that CA.")
]
CaChain = Annotated[
    Path | None,
    typer.Option("--chain", metavar="PEM", help="The CAs above that CA, up to the root."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Read the passphrase of the key from the first line of this file. Default: ask for"
        " it if the key is encrypted.",
    ),
]


def import_command(
    files: SignedFiles = None,
    root: RootCa = None,
    ca: ImportedCa = None,
    cert: CaCertificate = None,
    key: CaKey = None,
    chain: CaChain = None,
    passphrase_file: PassphraseFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the files; import nothing.")
    ] = False,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
    new_state: NewState = False,
    as_json: Json = False,
) -> None:
    """Import certificates that an external CA signed, or a CA with its key.

    Checks every certificate against the cluster: key, chain up to the root, subject, usages, names
    and validity. Reports all problems at once. Imports either all certificates or none.
    """
    now = datetime.now(UTC)
    project = check(make_inputs(config, pins=pins, state=state, new_state=new_state))
    may_create = check_state(project)
    plan, directory = project.plan, project.state_path
    if ca:
        if files or root or not cert:
            raise ConfigError("use --authority with --cert, --key and --chain, and without files")
        with _open(directory, create=may_create, dry_run=dry_run) as opened:
            report = import_ca(
                opened, plan, ca, now, certificate=cert, key=key, chain=chain,
                ask=lambda: ask_secret(passphrase_file, "Passphrase of the key"),
                dry_run=dry_run,
            )  # fmt: skip
    else:
        if not files or cert or key or chain:
            raise ConfigError(
                "give the signed certificates, as files or a directory",
                hint="or, for a CA with its key: --authority NAME --cert PEM --key PEM",
            )
        with _open(directory, create=False, dry_run=dry_run) as opened:
            report = import_signed(opened, plan, files, now, root=root, dry_run=dry_run)
    if as_json:
        print_json("certs-import", **_as_data(report, dry_run=dry_run))
    else:
        _print(report, directory, dry_run=dry_run)


@contextmanager
def _open(directory: Path, *, create: bool, dry_run: bool) -> Iterator[StateDirectory]:
    """Lock the state directory; a dry run does not create it."""
    if create and dry_run and not directory.is_dir():
        yield StateDirectory(directory)
        return
    with open_state(directory, create=create and not dry_run) as opened:
        yield opened


def _list_roots(report: ImportReport) -> list[tuple[str, str]]:
    return [
        (root.subject.rfc4514_string(), root.fingerprint(hashes.SHA256()).hex(":").upper())
        for root in report.roots
    ]


def _as_data(report: ImportReport, *, dry_run: bool) -> dict[str, Value]:
    rows: list[Value] = [
        {
            "name": one.name,
            "file": str(one.path),
            "subject": one.certificate.subject.rfc4514_string(),
            "issuer": one.certificate.issuer.rfc4514_string(),
            "not_after": one.certificate.not_valid_after_utc.isoformat(),
        }
        for one in report.imported
    ]
    return {
        "taken": not dry_run,
        "certificates": rows,
        "roots": [{"subject": name, "sha256": digest} for name, digest in _list_roots(report)],
        "notes": report.notes,
    }


def _print(report: ImportReport, directory: Path, *, dry_run: bool) -> None:
    for note in report.notes:
        log.note(note)
    for one in report.imported:
        log.result(f"{one.name:32} ends {one.certificate.not_valid_after_utc:%Y-%m-%d}  {one.path}")
    for name, digest in _list_roots(report):
        log.info(f"root: {log.make_printable(name)}")
        log.info(f"  SHA-256 {digest}\n  compare it with that of its owner")
    done = "valid; nothing was imported (--dry-run)" if dry_run else f"in {shown(directory)}"
    log.info(f"{len(report.imported)} certificates: {done}")
