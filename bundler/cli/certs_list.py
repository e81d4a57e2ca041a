"""`bundler certs list`."""

import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.bundle.front import read_front
from bundler.cli.json_output import Value, print_json
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Json,
    NewState,
    State,
    Warn,
    make_inputs,
)
from bundler.pki.inventory import (
    CertificateEntry,
    PendingRequest,
    list_bundle_certificates,
    list_requests,
    list_state_certificates,
    parse_days,
)
from bundler.project import check_state, load

WIDTH = 100
INDENT = " " * 23


def list_command(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            help="The tarball of a node, or a volume of it. Default: the state directory."
        ),
    ] = None,
    config: Description = CLUSTER_YAML,
    state: State = None,
    new_state: NewState = False,
    warn: Warn = None,
    as_json: Json = False,
) -> None:
    """List every certificate with its end and its issuer.

    The first line shows the days left, the end and the name; the lines below it subject, issuer and
    SANs. The certificate that ends first comes first. Requests that are not signed yet come last.
    CAs that bundler did not make are marked, and the CAs above them are listed too.
    """
    days = parse_days("--warn", warn) if warn else None
    now = datetime.now(UTC)
    requests: tuple[PendingRequest, ...] = ()
    if bundle is not None:
        entries = list_bundle_certificates(bundle, now)
        if seal := read_front(bundle).manifest.seal:
            log.warning(
                f"{bundle}: {len(seal.tags)} files are sealed: certificates in kubeconfigs are not"
                " listed; bundler certs list shows those of the state directory"
            )
    else:
        directory = state or _find_state(config, new_state=new_state)
        entries = list_state_certificates(directory, now)
        requests = list_requests(directory)
    if as_json:
        print_json("certs-list", **_as_data(entries, requests))
    else:
        _print(entries, requests, days)
    if days is not None and any(entry.days_left < days for entry in entries):
        raise typer.Exit(1)


def _find_state(config: Path, *, new_state: bool) -> Path:
    """Find the state directory, and check that it is the one that the lock names."""
    project = load(make_inputs(config, new_state=new_state), quiet=True)
    check_state(project)
    return project.state_path


def _as_data(
    entries: Sequence[CertificateEntry], requests: Sequence[PendingRequest]
) -> dict[str, Value]:
    certificates: list[Value] = [
        {
            "path": entry.path,
            "subject": entry.subject,
            "issuer": entry.issuer,
            "names": entry.names,
            "not_after": entry.not_after.isoformat(),
            "days_left": entry.days_left,
            "note": entry.note,
        }
        for entry in entries
    ]
    return {
        "certificates": certificates,
        "requests": [{"path": one.path, "subject": one.subject} for one in requests],
    }


def _print(
    entries: Sequence[CertificateEntry], requests: Sequence[PendingRequest], days: int | None
) -> None:
    for entry in entries:
        mark = "!" if days is not None and entry.days_left < days else " "
        log.result(f"{mark}{entry.days_left:>6} d  {entry.not_after:%Y-%m-%d}  {entry.path}")
        log.result("\n".join(_describe(entry)))
    for request in requests:
        subject = log.make_printable(request.subject)
        log.result(f" {'requested':>20}  {request.path}\n{INDENT}{subject}")


def _describe(entry: CertificateEntry) -> Iterator[str]:
    """Yield subject, issuer, names and note in lines of limited width."""
    issuer = "itself" if entry.issuer == entry.subject else entry.issuer
    names = f" for {', '.join(entry.names)}" if entry.names else ""
    for text in (f"{entry.subject} by {issuer}{names}", f"({entry.note})" if entry.note else ""):
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
