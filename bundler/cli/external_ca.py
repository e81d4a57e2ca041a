"""`bundler certs request` and `bundler certs import`: the site's own PKI signs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives import hashes

from bundler import log
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Pins,
    State,
    make_inputs,
    shown,
)
from bundler.cluster.plan import ClusterPlan
from bundler.errors import ConfigError
from bundler.pki.external_ca.csr_files import INDEX, digest_of, write_requests
from bundler.pki.external_ca.import_ca import import_authority
from bundler.pki.external_ca.import_signed import import_signed
from bundler.pki.external_ca.report import ImportReport
from bundler.pki.external_ca.requests import ensure_requests
from bundler.project import check
from bundler.state.directory import State as OpenState
from bundler.state.directory import open_state

WARNING = "warning: "

Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def request_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The directory to write: new, or of before.")
    ] = Path("requests"),
    authority: Annotated[
        list[str] | None,
        typer.Option(
            "--authority",
            metavar="NAME",
            help="Only this authority (kubernetes-ca, etcd-ca, front-proxy-ca); bundler makes the "
            "others itself. With --leaves: kubelet-ca, beside all certificates. May be repeated.",
        ),
    ] = None,
    leaves: Annotated[
        bool,
        typer.Option(
            "--leaves",
            help="A request for each certificate of the cluster, so that no key of its authorities "
            "is ever here. Read docs/guides/external-ca.md first.",
        ),
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also for what is signed already, for the same keys: renewal."),
    ] = False,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write requests (CSRs) for a PKI whose root's key is elsewhere.

    Makes the keys in the state directory, where they stay, and writes NAME.csr, NAME.ext (the
    extensions, for openssl), README.txt (the commands for the one who signs) and request.json.
    By default the three authorities are asked for, as intermediates: bundler signs under them.

    Asking again gives the same requests until `bundler certs import` has taken what came back. A
    build waits until then.
    """
    now = datetime.now(UTC)
    plan, directory = _find(config, pins, state)
    with open_state(directory) as opened:
        wanted = ensure_requests(
            opened, plan, now, authorities=tuple(authority or ()), leaves=leaves, again=everything
        )
        if wanted:
            write_requests(wanted, plan, output)
    if as_json:
        print((output / INDEX).read_text() if wanted else json.dumps({"requests": []}), end="")
        return
    if not wanted:
        log.info("everything is signed: there is nothing to ask for (--all asks anew)")
    for one in wanted:
        print(f"{digest_of(one)}  {shown(output / f'{one.name}.csr')}")
    if wanted:
        log.info(f"{shown(output)}: carry it to who signs; README.txt says what is to be done")


def import_command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE|DIRECTORY…",
            help="Signed certificates and those above them (PEM, DER, PKCS#7), whatever their "
            "names.",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="PEM", help="The root with which every chain must end."),
    ] = None,
    authority: Annotated[
        str | None,
        typer.Option(
            "--authority",
            metavar="NAME",
            help="Instead: take this authority from files, with its key.",
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option("--cert", metavar="PEM", help="The authority's certificate.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PEM", help="Its private key.")
    ] = None,
    chain: Annotated[
        Path | None,
        typer.Option("--chain", metavar="PEM", help="The certificates above it, up to the root."),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file", help="Its first line opens an encrypted key; else it is asked."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and take nothing.")] = False,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Take what the site's PKI signed, or an authority that it gives with its key.

    Every certificate is checked against the plan: key, chain up to the root, subject, usages,
    names, validity. All faults are told at once, and either all are taken or none.

    bundler certs import signed/ --root root.crt

    bundler certs import --authority kubernetes-ca --cert ca.crt --key ca.key --chain root.crt
    """
    now = datetime.now(UTC)
    plan, directory = _find(config, pins, state)
    if authority:
        if files or root or not cert:
            raise ConfigError("--authority goes with --cert, --key and --chain, and no other files")
        with _open(directory, dry_run=dry_run) as opened:
            report = import_authority(
                opened, plan, authority, now, certificate=cert, key=key, chain=chain,
                ask=lambda: _ask(passphrase_file), dry_run=dry_run,
            )  # fmt: skip
    else:
        if not files or cert or key or chain:
            raise ConfigError(
                "name the files or the directory that came back",
                hint="or, for an authority with its key: --authority NAME --cert PEM --key PEM",
            )
        with _open(directory, dry_run=dry_run) as opened:
            report = import_signed(opened, plan, files, now, root=root, dry_run=dry_run)
    _show(report, directory, dry_run=dry_run, as_json=as_json)


@contextmanager
def _open(directory: Path, *, dry_run: bool) -> Iterator[OpenState]:
    """The state, locked; a dry run makes none."""
    if dry_run and not directory.is_dir():
        yield OpenState(directory)
        return
    with open_state(directory) as opened:
        yield opened


def _find(config: Path, pins: Path | None, state: Path | None) -> tuple[ClusterPlan, Path]:
    project = check(make_inputs(config, pins=pins, state=state))
    return project.plan, project.state_path


def _ask(file: Path | None) -> str:
    if file is None:
        return str(typer.prompt("Passphrase of the key", hide_input=True, err=True))
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text") from error


def _show(report: ImportReport, directory: Path, *, dry_run: bool, as_json: bool) -> None:
    roots = [
        (root.subject.rfc4514_string(), root.fingerprint(hashes.SHA256()).hex(":").upper())
        for root in report.roots
    ]
    if as_json:
        rows = [
            {
                "name": one.name,
                "file": str(one.path),
                "subject": one.certificate.subject.rfc4514_string(),
                "issuer": one.certificate.issuer.rfc4514_string(),
                "not_after": one.certificate.not_valid_after_utc.isoformat(),
            }
            for one in report.taken
        ]
        found = {
            "taken": not dry_run,
            "certificates": rows,
            "roots": [{"subject": name, "sha256": digest} for name, digest in roots],
            "notes": report.notes,
        }
        print(json.dumps(found, indent=2))
        return
    for note in report.notes:
        if note.startswith(WARNING):
            log.warning(note.removeprefix(WARNING))
        else:
            log.info(note)
    for one in report.taken:
        print(f"{one.name:32} ends {one.certificate.not_valid_after_utc:%Y-%m-%d}  {one.path}")
    for name, digest in roots:
        log.info(f"root: {name}\n  SHA-256 {digest}\n  compare it with what its owner reads to you")
    what = "good; nothing was taken (--dry-run)" if dry_run else f"taken into {shown(directory)}"
    log.info(f"{len(report.taken)} certificates: {what}")
