"""`bundler admin …`: access for people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.media import SealOption, SinceOption
from bundler.cli.options import (
    CLUSTER_YAML,
    DeltaOutput,
    Description,
    NewState,
    Pins,
    SigningKey,
    State,
    ask_secret,
    make_inputs,
    with_inputs,
)
from bundler.cli.state_change import change_and_build, check_together
from bundler.errors import ConfigError, OutputError
from bundler.files import write_atomically
from bundler.pipeline import open_secrets
from bundler.pki.ca_certificates import check_has_cas
from bundler.pki.user_access import (
    BREAK_GLASS_GROUP,
    check_names,
    check_password,
    make_admin_pkcs12,
    make_user_kubeconfig,
    revoke_admin,
)
from bundler.project import Inputs, Project, check_state, load


def create_command(
    name: Annotated[str, typer.Option("--name", help="The user name for RBAC.")],
    group: Annotated[str | None, typer.Option("--group", help="The group for RBAC.")] = None,
    break_glass: Annotated[
        bool,
        typer.Option(
            "--break-glass", help="All rights, even if RBAC is broken; cannot be revoked."
        ),
    ] = False,
    days: Annotated[
        int, typer.Option("--days", min=1, max=3650, help="Days until the certificate ends.")
    ] = 30,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file to write. Default: NAME.kubeconfig."),
    ] = None,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
    new_state: NewState = False,
) -> None:
    """Create a kubeconfig with a client certificate for a user.

    The user has no permissions until you grant them: kubectl create rolebinding … --user NAME. A
    certificate cannot be revoked before it ends, so keep --days short.

    With --break-glass the user is in the group system:masters, which every API server gives all
    rights. It is for repairs when no other administrator has rights. No bundle has such a
    certificate. Keep it on the builder, and let it end after a day or two.
    """
    target = output or Path(f"{name}.kubeconfig")
    check_names(name, group)
    if break_glass and group:
        raise ConfigError("--break-glass is a group of its own: leave out --group")
    _check_absent(target)
    project = _load(make_inputs(config, pins=pins, state=state, new_state=new_state))
    with open_secrets(project, create=False) as secrets:
        user = make_user_kubeconfig(
            secrets.pki,
            project.plan,
            datetime.now(UTC),
            name=name,
            group=BREAK_GLASS_GROUP if break_glass else group,
            days=days,
        )
    write_atomically(target, user.content)
    log.info(f"{target}: {name}, ends on {user.not_after:%Y-%m-%d %H:%M} UTC")


def export_command(
    output: Annotated[Path, typer.Option("--p12", help="The PKCS#12 file to write.")],
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            help="Read the password from the first line of this file. Default: ask for it.",
        ),
    ] = None,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
    new_state: NewState = False,
) -> None:
    """Export the administrator's certificate and key as PKCS#12.

    A browser or keychain can import the file.
    """
    _check_absent(output)
    project = _load(make_inputs(config, pins=pins, state=state, new_state=new_state))
    password = ask_secret(password_file, "Password", option="--password-file", confirm=True)
    check_password(password)
    with open_secrets(project, create=False) as secrets:
        content = make_admin_pkcs12(secrets.pki, project.plan, password)
    write_atomically(output, content)
    log.info(f"{output}: the administrator's certificate and key, encrypted with the password")


@with_inputs()
def revoke_command(
    inputs: Inputs,
    since: SinceOption = None,
    output: DeltaOutput = None,
    sign: SigningKey = None,
    seal: SealOption = None,
) -> None:
    """Make every copy of admin.kubeconfig worthless, with a new one for the control planes.

    The administrator gets a new group, key and certificate. Install the new bundles on all control
    planes: then no right is bound to the former group. Without --since and -o only the state
    changes, and the next `bundler build` contains the new administrator.

    This is for a copied admin.kubeconfig. Whoever has a control plane's whole bundle has a CA's key
    too: see docs/guides/lost-media.md.
    """
    now = datetime.now(UTC)
    check_together(since, output)
    project = _load(inputs)

    def change() -> None:
        group = revoke_admin(project.state_path, project.plan, now)
        log.info(f"the administrator's group is now {group}")

    change_and_build(change, project, since, output, sign, seal)
    log.info("Then: install the bundles on every control plane, one after another")


def _load(inputs: Inputs) -> Project:
    """Load the project, and check that its state is here and complete."""
    project = load(inputs)
    check_state(project)
    check_has_cas(project.state_path, project.plan)
    return project


def _check_absent(output: Path) -> None:
    if output.exists():
        raise OutputError(
            f"{output} exists already", hint="choose another file, or delete it first"
        )
