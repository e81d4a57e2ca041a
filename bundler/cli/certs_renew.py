"""`bundler certs renew`: new certificates, and the small bundles that bring them to the hosts."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from bundler import log
from bundler.cli.complete import complete_certificate
from bundler.cli.json_output import Value, print_json
from bundler.cli.media import SealOption, SinceOption
from bundler.cli.options import DeltaOutput, DryRun, Json, SigningKey, with_inputs
from bundler.cli.state_change import change_and_build, check_together
from bundler.errors import ConfigError
from bundler.pki.inventory import parse_days
from bundler.pki.renew import Renewal, Selection, renew
from bundler.project import Inputs, check_state, load
from bundler.state.replaced import get_archive_path

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Names as `bundler certs list` prints them, such as pki/nodes/master1/apiserver."
        " `pki/` may be left out, and `*` matches anything.",
        autocompletion=complete_certificate,
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="Renew every certificate except the CAs.")]
Expiring = Annotated[
    str | None,
    typer.Option(
        "--expiring", metavar="DAYS", help="Renew all that end sooner than this, such as 90d."
    ),
]
KeepKeys = Annotated[
    bool, typer.Option("--keep-keys", help="Renew the certificates for the same private keys.")
]


@with_inputs()
def renew_command(
    inputs: Inputs,
    names: Names = None,
    everything: Everything = False,
    expiring: Expiring = None,
    keep_keys: KeepKeys = False,
    since: SinceOption = None,
    output: DeltaOutput = None,
    sign: SigningKey = None,
    seal: SealOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Renew certificates, with new keys.

    1. bundler certs renew --expiring 90d --since dist/ -o renewal/: renews them in the state
    directory, and builds small bundles: deltas to those in dist/. Without --since and -o, only the
    state changes, and the next `bundler build` contains the new certificates.

    2. Copy the bundles to the hosts and run install.sh on each host (control planes one by one, or
    with --wait 15m). It restarts only the services that cannot reload their certificates: see
    docs/guides/certificates.md.

    3. bundler certs check --live: shows whether the servers use the new certificates.

    The replaced files are kept in STATE/archive/TIME. This command does not renew CAs: use `bundler
    certs rotate`. The service account key has no certificate and does not end. Kubelets renew their
    own certificates.
    """
    now = datetime.now(UTC)
    selection = _make_selection(names, expiring, now, everything=everything)
    check_together(since, output)
    project = load(inputs)
    check_state(project)
    state, plan = project.state_path, project.plan
    planned = renew(state, plan, selection, now, keep_keys=keep_keys, dry_run=True)
    if dry_run or not planned:
        _print_renewals(planned, as_json=as_json)
        log.info(
            f"{len(planned)} certificates would be renewed; nothing was changed"
            if planned
            else "no certificate needs renewal"
        )
        return

    def change() -> None:
        renewals = renew(state, plan, selection, now, keep_keys=keep_keys)
        _print_renewals(renewals, as_json=as_json)
        archive = get_archive_path(state, now)
        log.info(f"{len(renewals)} certificates renewed; the old ones are in {archive}")

    change_and_build(change, project, since, output, sign, seal)


def _make_selection(
    names: list[str] | None, expiring: str | None, now: datetime, *, everything: bool
) -> Selection:
    days = parse_days("--expiring", expiring) if expiring else None
    if sum((bool(names), everything, days is not None)) != 1:
        raise ConfigError(
            "give either names, or --all, or --expiring DAYS",
            hint="bundler certs list shows the names",
        )
    before = now + timedelta(days=days) if days is not None else None
    return Selection(names=tuple(names or ()), everything=everything, before=before)


def _print_renewals(renewals: tuple[Renewal, ...], *, as_json: bool) -> None:
    if as_json:
        rows: list[Value] = [
            {
                "path": r.name,
                "old_end": r.old_end.isoformat() if r.old_end else None,
                "new_end": r.new_end.isoformat(),
            }
            for r in renewals
        ]
        print_json("certs-renew", certificates=rows)
    else:
        for r in renewals:
            old = f"{r.old_end:%Y-%m-%d}" if r.old_end else "missing"
            log.result(f"{old:10} → {r.new_end:%Y-%m-%d}  {r.name}")
    short = [r for r in renewals if r.is_cut_short]
    if short:
        log.warning(
            f"{len(short)} of them end on {min(r.new_end for r in short):%Y-%m-%d}, sooner than"
            " pki.days says, because their CA ends then"
        )
