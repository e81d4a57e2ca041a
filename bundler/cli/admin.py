"""`bundler admin …`: access for people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.options import CLUSTER_YAML, Description, Pins, StatePath, make_inputs
from bundler.errors import ConfigError, OutputError
from bundler.files import write_atomically
from bundler.pipeline import open_secrets
from bundler.pki.user_access import (
    check_names,
    check_password,
    make_admin_pkcs12,
    make_user_kubeconfig,
)
from bundler.project import check

app = typer.Typer(
    no_args_is_help=True, help="Access for people: more users, and the administrator's identity."
)


@app.command("create")
def create_command(
    name: Annotated[str, typer.Option("--name", help="The user's name, as RBAC will see it.")],
    group: Annotated[str | None, typer.Option("--group", help="The user's group.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days it is valid.")] = 30,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: NAME.kubeconfig.")
    ] = None,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: StatePath = None,
) -> None:
    """Make a kubeconfig with a certificate of its own for one more user.

    The user may do nothing until RBAC says so: kubectl create rolebinding … --user NAME. A
    certificate cannot be taken back before it ends: give few days.
    """
    target = output or Path(f"{name}.kubeconfig")
    check_names(name, group)
    _check_absent(target)
    project = check(make_inputs(config, pins=pins, state=state, offline=True))
    with open_secrets(project) as secrets:
        user = make_user_kubeconfig(
            secrets.pki, project.plan, datetime.now(UTC), name=name, group=group, days=days
        )
    write_atomically(target, user.content)
    log.info(f"{target}: {name}, ends on {user.not_after:%Y-%m-%d %H:%M} UTC")


@app.command("export")
def export_command(
    output: Annotated[Path, typer.Option("--p12", help="The PKCS#12 file to write.")],
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help="Its first line is the password; else it is asked."),
    ] = None,
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    state: StatePath = None,
) -> None:
    """Write the administrator's certificate and key as PKCS#12, for a browser or keychain."""
    if password_file is None:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        try:
            password = password_file.read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{password_file}: cannot be read: {error}") from error
    check_password(password)
    _check_absent(output)
    project = check(make_inputs(config, pins=pins, state=state, offline=True))
    with open_secrets(project) as secrets:
        content = make_admin_pkcs12(secrets.pki, project.plan, password)
    write_atomically(output, content)
    log.info(f"{output}: the administrator's certificate and key, under that password")


def _check_absent(output: Path) -> None:
    if output.exists():
        raise OutputError(
            f"{output} exists already", hint="choose another file, or delete it first"
        )
