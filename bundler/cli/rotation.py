"""What the rotation commands share: show the stage, or take a step and build its bundles."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bundler import log
from bundler.cli.json_output import print_json
from bundler.cli.state_change import change_and_build, check_together
from bundler.project import Inputs, check_state, load
from bundler.state.stages import Rotation, describe_stage, find_step, take_step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """The options of a rotation command."""

    step: str | None
    names: tuple[str, ...]
    since: list[str] | None
    output: Path | None
    sign: Path | None
    seal: bool | None
    dry_run: bool
    as_json: bool


def run_rotation(rotation: Rotation, inputs: Inputs, options: StepOptions) -> None:
    """Run the command: without a step, show the stage of the state directory."""
    now = datetime.now(UTC)
    check_together(options.since, options.output)
    project = load(inputs)
    check_state(project)
    state, plan = project.state_path, project.plan
    if not options.step:
        stage = describe_stage(rotation, state)
        if options.as_json:
            print_json("rotation-stage", stage=rotation.read_stage(state))
        else:
            log.result(stage)
        return
    name = options.step

    def run_step(*, dry_run: bool, show: bool = True) -> None:
        change = take_step(rotation, state, plan, name, now, names=options.names, dry_run=dry_run)
        if not show:
            return
        if options.as_json:
            print_json("rotation-step", step=name, says=change.messages, dry_run=dry_run)
        else:
            log.result("\n".join(change.messages))

    if options.dry_run:
        run_step(dry_run=True)
        log.info("nothing was changed")
        return
    run_step(dry_run=True, show=False)  # raises what forbids the step, before a build starts
    change_and_build(
        lambda: run_step(dry_run=False),
        project,
        options.since,
        options.output,
        options.sign,
        options.seal,
    )
    log.info(f"Then: {find_step(rotation, name).next_action}")
