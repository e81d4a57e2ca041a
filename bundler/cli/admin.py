"""`bundler admin …`: access for people."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.admin import create_user, export_admin
from bundler.cache.store import Cache
from bundler.errors import ConfigError
from bundler.paths import default_cache
from bundler.project import Inputs

app = typer.Typer(
    no_args_is_help=True, help="Access for people: more users, and the administrator's identity."
)

Config = Annotated[Path, typer.Option("-c", "--config", help="The cluster description.")]
Pins = Annotated[Path | None, typer.Option("--pins", help="As for build.")]
State = Annotated[Path | None, typer.Option("--state", help="As for build.")]
CLUSTER_YAML = Path("cluster.yaml")


@app.command("create")
def create_command(
    name: Annotated[str, typer.Option("--name", help="The user's name, as RBAC will see it.")],
    group: Annotated[str | None, typer.Option("--group", help="The user's group.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Days it is valid.")] = 30,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: NAME.kubeconfig.")
    ] = None,
    config: Config = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
) -> None:
    """Make a kubeconfig with a certificate of its own for one more user.

    The user may do nothing until RBAC says so: kubectl create rolebinding … --user NAME. A
    certificate cannot be taken back before it ends: give few days.
    """
    target = output or Path(f"{name}.kubeconfig")
    user = create_user(
        _make_inputs(config, pins, state), name=name, group=group, days=days, output=target
    )
    log.info(f"{user.path}: {user.name}, ends on {user.not_after:%Y-%m-%d %H:%M} UTC")


@app.command("export")
def export_command(
    output: Annotated[Path, typer.Option("--p12", help="The PKCS#12 file to write.")],
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", help="Its first line is the password; else it is asked."),
    ] = None,
    config: Config = CLUSTER_YAML,
    pins: Pins = None,
    state: State = None,
) -> None:
    """Write the administrator's certificate and key as PKCS#12, for a browser or keychain."""
    if password_file is None:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        try:
            password = password_file.read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{password_file}: cannot be read: {error}") from error
    export_admin(_make_inputs(config, pins, state), password=password, output=output)
    log.info(f"{output}: the administrator's certificate and key, under that password")


def _make_inputs(config: Path, pins: Path | None, state: Path | None) -> Inputs:
    return Inputs(
        description=config, cache=Cache(default_cache()), offline=True, pins=pins, state=state
    )
