"""`bundler certs …`: what certificates there are, and when they end."""

import json
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bundler.cli import (
    certs_live,
    certs_renew,
    certs_rotate,
    external_ca,
)
from bundler.cli.options import CLUSTER_YAML, Description, Json, StatePath, Warn
from bundler.cluster.loader import load_cluster
from bundler.paths import default_state
from bundler.pki.certs import (
    CertificateEntry,
    Request,
    list_bundle,
    list_requests,
    list_state,
    parse_days,
)

HELP = "What certificates there are, who signs them, when they end, and how they are made anew."
WIDTH = 100
INDENT = " " * 23
app = typer.Typer(no_args_is_help=True, help=HELP)
app.command("renew")(certs_renew.renew_command)
app.command("rotate")(certs_rotate.rotate_command)
app.command("check")(certs_live.check_command)
app.command("request")(external_ca.request_command)
app.command("import")(external_ca.import_command)


@app.command("list")
def list_command(
    bundle: Annotated[
        Path | None,
        typer.Argument(help="A node's tarball, or a volume of it. Default: the state directory."),
    ] = None,
    config: Description = CLUSTER_YAML,
    state: StatePath = None,
    warn: Warn = None,
    as_json: Json = False,
) -> None:
    """List every certificate: days left, end, place; below these subject, issuer, names.

    The soonest end comes first; behind all the requests whose certificates have not come back.
    Authorities that bundler did not make itself are marked, and those above them are listed, too.
    """
    days = parse_days("--warn", warn) if warn else None
    now = datetime.now(UTC)
    requests: tuple[Request, ...] = ()
    if bundle is not None:
        entries = list_bundle(bundle, now)
    else:
        directory = state or default_state(config, load_cluster(config).cluster.name)
        entries = list_state(directory, now)
        requests = list_requests(directory)
    if as_json:
        print(
            json.dumps(
                [
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
                + [
                    {"path": request.path, "subject": request.subject, "requested": True}
                    for request in requests
                ],
                indent=2,
            )
        )
    else:
        for entry in entries:
            mark = "!" if days is not None and entry.days_left < days else " "
            print(f"{mark}{entry.days_left:>6} d  {entry.not_after:%Y-%m-%d}  {entry.path}")
            print("\n".join(_describe(entry)))
        for request in requests:
            print(f" {'requested':>20}  {request.path}\n{INDENT}{request.subject}")
    if days is not None and any(entry.days_left < days for entry in entries):
        raise typer.Exit(1)


def _describe(entry: CertificateEntry) -> Iterator[str]:
    """What it says, and what is to be known of it, in lines that fit."""
    issuer = "itself" if entry.issuer == entry.subject else entry.issuer
    names = f" for {', '.join(entry.names)}" if entry.names else ""
    for text in (f"{entry.subject} by {issuer}{names}", f"({entry.note})" if entry.note else ""):
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
