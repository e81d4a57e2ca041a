"""`bundler certs …`: what certificates there are, and when they end."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.build import state_path
from bundler.cache import Cache
from bundler.certs import list_bundle, list_state
from bundler.errors import ConfigError
from bundler.gather import Inputs
from bundler.live import Seen, list_servers, look_at_all
from bundler.loader import load_cluster
from bundler.paths import default_cache, default_state
from bundler.plan import make_plan
from bundler.renew import choose, list_renewable, renew

app = typer.Typer(
    no_args_is_help=True, help="Certificates: what there is, when they end, and new ones in time."
)

Config = Annotated[Path, typer.Option("-c", "--config", help="The cluster description.")]
State = Annotated[Path | None, typer.Option("--state", help="As for build.")]
Warn = Annotated[
    str | None,
    typer.Option("--warn", help="Exit code 1 if one has fewer days left, such as 60d."),
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
CLUSTER_YAML = Path("cluster.yaml")


@app.callback()
def _root() -> None:
    """Certificates: what there is, when they end, and new ones in time."""


@app.command("list")
def list_command(
    bundle: Annotated[
        Path | None, typer.Argument(help="A node's tarball. Default: the state directory.")
    ] = None,
    config: Config = CLUSTER_YAML,
    state: State = None,
    warn: Warn = None,
    as_json: Json = False,
) -> None:
    """List every certificate: days left, end, subject, place; the soonest end first."""
    days = _parse_days(warn) if warn else None
    now = datetime.now(UTC)
    if bundle is not None:
        entries = list_bundle(bundle, now)
    else:
        directory = state or default_state(config, load_cluster(config).cluster.name)
        entries = list_state(directory, now)
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
                    }
                    for entry in entries
                ],
                indent=2,
            )
        )
    else:
        for entry in entries:
            mark = "!" if days is not None and entry.days_left < days else " "
            ends = f"{entry.not_after:%Y-%m-%d}"
            print(f"{mark}{entry.days_left:>6} d  {ends}  {entry.subject:52} {entry.path}")
    if days is not None and any(entry.days_left < days for entry in entries):
        raise typer.Exit(1)


@app.command("renew")
def renew_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME…]", help="As `certs list` prints them; * stands for all."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All but authorities.")] = False,
    expiring: Annotated[
        str | None, typer.Option("--expiring", help="Those with fewer days left, such as 90d.")
    ] = None,
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="New certificates for the keys that there are.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    config: Config = CLUSTER_YAML,
    state: State = None,
) -> None:
    """Issue certificates anew in the state directory; the pairs of before are kept in `archive`.

    Then make the small bundles and install them, control planes first, in any order and side by
    side: `bundler build --since OLD_DIST -o renewal`, and on each host `install.sh --wait 15m`.
    Control planes restart one after another; etcd takes its new certificates without a restart.

    Kubelets renew their own by themselves. The service accounts' key is no certificate, and stays.
    """
    days = _parse_days(expiring, "--expiring") if expiring else None
    if not names and not everything and days is None:
        raise ConfigError("say which: NAME…, --all or --expiring 90d")
    inputs = _make_inputs(config, state)
    chosen = choose(list_renewable(inputs), names or (), everything=everything, days=days)
    if dry_run:
        for entry in chosen:
            print(f"{entry.days_left:>6} d  {entry.not_after:%Y-%m-%d}  {entry.path}")
        return
    for made in renew(inputs, chosen, keep_keys=keep_keys):
        print(f"{made.before:%Y-%m-%d} → {made.after:%Y-%m-%d}  {made.path}")
    log.info(f"{len(chosen)} renewed; next: bundler build --since OLD_DIST, then install")


@app.command("check")
def check_command(
    live: Annotated[
        list[str] | None,
        typer.Option("--live", metavar="HOST:PORT", help="Only this server (several times)."),
    ] = None,
    config: Config = CLUSTER_YAML,
    state: State = None,
    warn: Warn = None,
    as_json: Json = False,
) -> None:
    """Look at the certificates that the running servers show: by default all of the plan's.

    Each must be signed by an authority of the state directory, name the address, and not have
    ended. Nothing is sent but a TLS handshake.

    Exit code 1: one is wrong or cannot be seen, or has fewer days left than --warn.
    """
    days = _parse_days(warn) if warn else None
    inputs = _make_inputs(config, state)
    cluster = load_cluster(inputs.description).cluster
    directory = state_path(inputs, cluster)
    servers = tuple((each, "") for each in live) if live else list_servers(make_plan(cluster, {}))
    seen = look_at_all(servers, directory, datetime.now(UTC))
    if as_json:
        print(json.dumps([_as_data(each) for each in seen], indent=2))
    else:
        for each in seen:
            print(_tell(each, days))
    if any(each.faults or _is_due(each, days) for each in seen):
        raise typer.Exit(1)


def _as_data(seen: Seen) -> dict[str, object]:
    return dataclasses.asdict(seen) | {
        "not_after": seen.not_after.isoformat() if seen.not_after else None
    }


def _is_due(seen: Seen, days: int | None) -> bool:
    return days is not None and seen.days_left is not None and seen.days_left < days


def _tell(seen: Seen, days: int | None) -> str:
    if seen.not_after is None:
        return f"WRONG              {seen.address:24} {seen.server}: {seen.faults[0]}"
    mark = "WRONG " if seen.faults else "soon  " if _is_due(seen, days) else "ok    "
    origin = seen.stored or seen.authority or f"issuer {seen.issuer}"
    faults = "".join(f"; {fault}" for fault in seen.faults)
    return (
        f"{mark}{seen.days_left:>6} d {seen.not_after:%Y-%m-%d}  {seen.address:24}"
        f" {seen.server or seen.subject} ({origin}){faults}"
    )


def _make_inputs(config: Path, state: Path | None) -> Inputs:
    return Inputs(description=config, state=state, cache=Cache(default_cache()), offline=True)


def _parse_days(text: str, option: str = "--warn") -> int:
    match = re.fullmatch(r"(\d{1,5})d?", text)
    if not match:
        raise ConfigError(f"{option} {text}: must be a number of days such as 60d")
    return int(match[1])
