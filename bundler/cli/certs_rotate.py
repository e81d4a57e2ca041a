"""`bundler certs rotate`: new authorities by stages, and the bundles that bring each of them."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from bundler import log
from bundler.cli.carry import change_and_build, check_together
from bundler.cli.media import SinceOption
from bundler.cli.options import Json, Output, SigningKey, with_inputs
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.paths import default_state
from bundler.pki.rotation import (
    STEPS,
    check_step,
    describe_stage,
    find_step,
    rotate,
)
from bundler.pki.rotation_stages import read_stage
from bundler.project import Inputs

StepName = StrEnum("StepName", {step.name: step.name for step in STEPS})  # type: ignore[misc]


@with_inputs()
def rotate_command(
    inputs: Inputs,
    step: Annotated[
        StepName | None,
        typer.Argument(metavar="[trust|issue|drop|abandon]", help="Default: say where it stands."),
    ] = None,
    since: SinceOption = None,
    output: Output = None,
    sign: SigningKey = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    as_json: Json = False,
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

    Authorities of your own come from where they came from: see docs/guides/external-ca.md.
    """
    now = datetime.now(UTC)
    check_together(since, output)
    cluster = load_cluster(inputs.description).cluster
    state = inputs.state or default_state(inputs.description, cluster.name)
    if step is None:
        stage = describe_stage(state)
        print(json.dumps({"stage": read_stage(state).value}) if as_json else stage)
        return
    name, plan = step.value, make_plan(cluster)

    def take_step(*, dry_run: bool) -> None:
        change = rotate(state, plan, name, now, dry_run=dry_run)
        facts = {"step": name, "says": change.says, "dry_run": dry_run}
        print(json.dumps(facts, indent=2) if as_json else "\n".join(change.says))

    if dry_run:
        take_step(dry_run=True)
        log.info("nothing was changed")
        return
    check_step(state, plan, name)
    change_and_build(lambda: take_step(dry_run=False), inputs, since, output, sign)
    log.info(f"Then: {find_step(name).then}")
