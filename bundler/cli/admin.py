"""`bundler admin …`: access for people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Pins,
    State,
    ask_secret,
    make_inputs,
)
from bundler.errors import OutputError
from bundler.files import write_atomically
from bundler.pipeline import open_secrets
from bundler.pki.ca_certificates import check_has_cas
from bundler.pki.user_access import (
    check_names,
    check_password,
    make_admin_pkcs12,
    make_user_kubeconfig,
)
from bundler.project import load


def create_command(
    name: Annotated[str, typer.Option("--name", help="The user name for RBAC.")],
    group: Annotated[str | None, typer.Option("--group", help="The group for RBAC.")] = None,
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
) -> None:
    """Create a kubeconfig with a client certificate for a user.

    The user has no permissions until you grant them: kubectl create rolebinding … --user NAME. A
    certificate cannot be revoked before it ends, so keep --days short.
    """
    target = output or Path(f"{name}.kubeconfig")
    check_names(name, group)
    _check_absent(target)
    project = load(make_inputs(config, pins=pins, state=state, offline=True))
    with open_secrets(project, create=False) as secrets:
        user = make_user_kubeconfig(
            secrets.pki, project.plan, datetime.now(UTC), name=name, group=group, days=days
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
) -> None:
    """Export the administrator's certificate and key as PKCS#12.

    A browser or keychain can import the file.
    """
    _check_absent(output)
    project = load(make_inputs(config, pins=pins, state=state, offline=True))
    check_has_cas(project.state_path, project.plan)
    password = ask_secret(password_file, "Password", option="--password-file", confirm=True)
    check_password(password)
    with open_secrets(project, create=False) as secrets:
        content = make_admin_pkcs12(secrets.pki, project.plan, password)
    write_atomically(output, content)
    log.info(f"{output}: the administrator's certificate and key, encrypted with the password")


def _check_absent(output: Path) -> None:
    if output.exists():
        raise OutputError(
            f"{output} exists already", hint="choose another file, or delete it first"
        )
