"""`bundler certs rotate`: new CAs in stages, and the bundles that bring each stage to the hosts."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from bundler import log
from bundler.cli.media import SealOption, SinceOption
from bundler.cli.options import DeltaOutput, Json, SigningKey, with_inputs
from bundler.cli.state_change import change_and_build, check_together
from bundler.pki.rotation import (
    STEPS,
    check_step,
    describe_stage,
    find_step,
    rotate,
)
from bundler.pki.rotation_stages import read_stage
from bundler.project import Inputs, check_state, load

StepName = StrEnum("StepName", {step.name: step.name for step in STEPS})  # type: ignore[misc]


@with_inputs()
def rotate_command(
    inputs: Inputs,
    step: Annotated[
        StepName | None,
        typer.Argument(
            metavar="[trust|issue|drop|abandon]", help="Default: show the current stage."
        ),
    ] = None,
    since: SinceOption = None,
    output: DeltaOutput = None,
    sign: SigningKey = None,
    seal: SealOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Replace the CAs of the cluster in three stages, without downtime.

    1. bundler certs rotate trust --since dist/ -o trust/: creates new CAs, which sign nothing yet,
    and the bundles that make every host trust both the old and the new CAs. Install them on all
    hosts, in any order. Then restart the pods that connect to the API server.

    2. bundler certs rotate issue --since trust/ -o issue/: renews every certificate, signed by the
    new CAs. Install the bundles on all hosts, control planes first.

    3. bundler certs rotate drop --since issue/ -o drop/: no host trusts the old CAs any more.
    Install the bundles on all hosts. Prune earlier generations on the hosts, because they contain
    the old CAs.

    install.sh asks the other hosts, and refuses a stage while a host has not installed the stage
    before it (with --wait 15m it waits for that host). `bundler certs rotate abandon` goes back
    from the first stage. Without --since and -o, only the state changes, and the next `bundler
    build` contains the new CAs. The replaced files are kept in STATE/archive/TIME.

    Without an argument, shows the current stage and the next step. This command cannot rotate CAs
    of an external PKI: see docs/guides/external-ca.md.
    """
    now = datetime.now(UTC)
    check_together(since, output)
    project = load(inputs)
    check_state(project)
    state, plan = project.state_path, project.plan
    if not step:
        stage = describe_stage(state)
        log.result(json.dumps({"stage": read_stage(state).value}) if as_json else stage)
        return
    name = step.value

    def take_step(*, dry_run: bool) -> None:
        change = rotate(state, plan, name, now, dry_run=dry_run)
        facts = {"step": name, "says": change.messages, "dry_run": dry_run}
        log.result(json.dumps(facts, indent=2) if as_json else "\n".join(change.messages))

    if dry_run:
        take_step(dry_run=True)
        log.info("nothing was changed")
        return
    check_step(state, plan, name)
    change_and_build(lambda: take_step(dry_run=False), project, since, output, sign, seal)
    log.info(f"Then: {find_step(name).next_action}")
