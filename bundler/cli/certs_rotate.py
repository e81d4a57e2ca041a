"""`bundler certs rotate`: new CAs in stages, and the bundles that bring each stage to the hosts."""

from enum import StrEnum
from typing import Annotated

import typer

from bundler.cli.media import SealOption, SinceOption
from bundler.cli.options import DeltaOutput, DryRun, Json, SigningKey, with_inputs
from bundler.cli.rotation import StepOptions, run_rotation
from bundler.pki.rotation import CERTIFICATES
from bundler.pki.rotation_stages import SERVICE_ACCOUNT
from bundler.project import Inputs

StepName = StrEnum("StepName", {s.name: s.name for s in CERTIFICATES.steps})  # type: ignore[misc]


class Only(StrEnum):
    """What may be rotated by itself."""

    SERVICE_ACCOUNT = SERVICE_ACCOUNT


@with_inputs()
def rotate_command(
    inputs: Inputs,
    step: Annotated[
        StepName | None,
        typer.Argument(
            metavar="[trust|issue|drop|abandon]", help="Default: show the current stage."
        ),
    ] = None,
    only: Annotated[
        Only | None,
        typer.Option("--only", help="Start the rotation of the service account key alone."),
    ] = None,
    since: SinceOption = None,
    output: DeltaOutput = None,
    sign: SigningKey = None,
    seal: SealOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Replace the CAs and the service account key in three stages, without downtime.

    1. bundler certs rotate trust --since dist/ -o trust/: creates new CAs and a new key, which sign
    nothing yet, and the bundles that make every host trust both the old and the new ones. Install
    them on all hosts, in any order. Then restart the pods that connect to the API server.

    2. bundler certs rotate issue --since trust/ -o issue/: renews every certificate, signed by the
    new CAs, and the new key signs the tokens of service accounts. Install the bundles on all hosts,
    control planes first. Then run /opt/k8s/libexec/renew-service-accounts.sh on a control plane: it
    replaces the tokens that do not end, and says what you must restart.

    3. bundler certs rotate drop --since issue/ -o drop/: no host trusts the old ones any more.
    Install the bundles on all hosts. Prune earlier generations on the hosts, because they contain
    the old keys.

    install.sh asks the other hosts, and refuses a stage while a host has not installed the stage
    before it, or while the cluster still uses a token of the old key (with --wait 90m it waits).
    `bundler certs rotate abandon` goes back from the first stage. Without --since and -o, only the
    state changes, and the next `bundler build` contains the new keys. The replaced files are kept
    in STATE/archive/TIME.

    Without an argument, shows the current stage and the next step. This command cannot rotate CAs
    of an external PKI (docs/guides/external-ca.md): there, start with --only service-account.
    """
    options = StepOptions(
        step=step.value if step else None,
        names=(only.value,) if only else (),
        since=since,
        output=output,
        sign=sign,
        seal=seal,
        dry_run=dry_run,
        as_json=as_json,
    )
    run_rotation(CERTIFICATES, inputs, options)
