"""`bundler secrets rotate`: a new encryption key in stages, and the bundles of each stage."""

from enum import StrEnum
from typing import Annotated

import typer

from bundler.cli.media import SealOption, SinceOption
from bundler.cli.options import DeltaOutput, DryRun, Json, SigningKey, with_inputs
from bundler.cli.rotation import StepOptions, run_rotation
from bundler.project import Inputs
from bundler.state.encryption import ENCRYPTION

StepName = StrEnum("StepName", {s.name: s.name for s in ENCRYPTION.steps})  # type: ignore[misc]


@with_inputs()
def rotate_command(
    inputs: Inputs,
    step: Annotated[
        StepName | None,
        typer.Argument(
            metavar="[read|write|drop|abandon|recall]", help="Default: show the current stage."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="With recall: the name of the key.")
    ] = None,
    since: SinceOption = None,
    output: DeltaOutput = None,
    sign: SigningKey = None,
    seal: SealOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Replace the key that encrypts Secrets in etcd, in three stages, without downtime.

    1. bundler secrets rotate read --since dist/ -o read/: creates a new key. Install the bundles on
    all control planes: every API server can then read with both keys, and writes with the old one.

    2. bundler secrets rotate write --since read/ -o write/: API servers write with the new key.
    Install the bundles on all control planes. When all have them, kube-rotation.service
    writes every Secret again, under the new key (journalctl -u kube-rotation).

    3. bundler secrets rotate drop --since write/ -o drop/: API servers have the new key only.
    Install the bundles on all control planes.

    install.sh asks the other API servers, and refuses a stage while one of them lacks the stage
    before it. It refuses the last stage while etcd holds a Secret under the old key. Both can be
    killed at any moment: run them again. `bundler secrets rotate abandon` goes back from the first
    stage. Without --since and -o, only the state changes.

    A backup of etcd from before the rotation needs the old key, which is kept in
    STATE/archive/TIME. restore.sh names the key that a backup needs; `bundler secrets rotate recall
    KEY` brings it back (docs/guides/backup.md).
    """
    options = StepOptions(
        step=step.value if step else None,
        names=(key,) if key else (),
        since=since,
        output=output,
        sign=sign,
        seal=seal,
        dry_run=dry_run,
        as_json=as_json,
    )
    run_rotation(ENCRYPTION, inputs, options)
