"""`bundler certs rotate`: new authorities by stages, and the bundles that bring each of them."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bundler import build as pipeline
from bundler import log
from bundler.arrange import Media
from bundler.cli_media import SinceOption, next_step
from bundler.cli_options import shown, with_inputs
from bundler.errors import ConfigError
from bundler.gather import Inputs
from bundler.loader import load_cluster
from bundler.paths import default_state
from bundler.plan import make_plan
from bundler.rotation import STEPS, describe_stage, find_step, rotate
from bundler.stages import read_stage

StepName = StrEnum("StepName", {step.name: step.name for step in STEPS})  # type: ignore[misc]


@with_inputs()
def rotate_command(
    inputs: Inputs,
    step: Annotated[
        StepName | None,
        typer.Argument(metavar="[trust|issue|drop|abandon]", help="Default: say where it stands."),
    ] = None,
    since: SinceOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="With --since: where bundles go.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="As for build.", metavar="KEY")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Replace the cluster's authorities by new ones, in three stages, without downtime.

    1. `bundler certs rotate trust --since dist/ -o trust/` makes new authorities, which sign
    nothing yet, and the bundles with which every host believes both. Install them everywhere, in
    any order; then restart the pods that talk to the API server.

    2. `bundler certs rotate issue --since trust/ -o issue/` makes every certificate anew, signed by
    the new ones. Install the bundles on every host, control planes first.

    3. `bundler certs rotate drop --since issue/ -o drop/`: nobody believes the former ones any
    more. Install the bundles everywhere; hosts prune earlier generations, which hold the former
    authorities.

    install.sh asks the other hosts and refuses a stage for as long as one lacks the stage before
    (with --wait 15m it waits for it). `bundler certs rotate abandon` leads back from the first
    stage. Without --since and -o only the state directory changes, and any later `bundler build`
    brings it. What was replaced is kept in STATE/archive/TIME.

    Without an argument: where the cluster stands, and what comes next.

    Authorities of your own come from where they came from: see docs/own-pki.md.
    """
    now = datetime.now(UTC)
    if (since is None) != (output is None):
        raise ConfigError("--since and -o belong together: what hosts carry, and where to write")
    cluster = load_cluster(inputs.description).cluster
    state = inputs.state or default_state(inputs.description, cluster.name)
    if step is None:
        stage = describe_stage(state)
        print(json.dumps({"stage": read_stage(state).value}) if as_json else stage)
        return
    change = rotate(state, make_plan(cluster, {}), step.value, now, dry_run=dry_run)
    if as_json:
        print(json.dumps({"step": step.value, "says": change.says, "dry_run": dry_run}, indent=2))
    else:
        print("\n".join(change.says))
    if dry_run:
        log.info("nothing was changed")
        return
    if output is None:
        log.info("Next: bundler build --since DIST -o STAGE, with what the hosts carry as DIST")
    else:
        media = Media(since=tuple(since or ()))
        for file in pipeline.build(inputs, output, signing_key=sign, media=media):
            log.info(f"{file.sha256}  {file.size:>12}  {shown(file.path)}")
        log.info(next_step(media))
    log.info(f"Then: {find_step(step.value).then}")
