"""The entry point of the command line: errors become a message and an exit code.

Results go to stdout, everything else to stderr.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bundler import __version__, log
from bundler.cli.commands import COMMANDS, PANELS
from bundler.cli.lazy import make_commands
from bundler.cli.panels import write_commands
from bundler.errors import INTERRUPTED, BundlerError, OutputError

KEPT = "finished files are kept, and the next run resumes"


class RootGroup(TyperGroup):
    """The root command with the commands of the table."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands.update(make_commands(COMMANDS))

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer's signature
        """Write the commands in panels."""
        rows = {
            title: [(name, str(self.commands[name].help)) for name in names]
            for title, names in PANELS.items()
        }
        write_commands(rows, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Typer would print only "Aborted!" where a file ends early."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise OutputError(
                f"a file ends early: {error}", hint="create the file again, or read its copy"
            ) from error


app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help starts faster than rich help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Build offline bundles for Kubernetes on plain hosts.

1. Write a cluster.yaml: bundler init. Check it: bundler check

2. Build one tarball per node: bundler build -c cluster.yaml -o dist/

3. Copy each tarball to its host, unpack it there and run ./install.sh as root.

4. Verify the cluster: run ./verify.sh on a control-plane node.
""",
    epilog="""Exit codes: 0 success, 2 cluster.yaml or the command line is wrong, 3 an upstream file
or image is missing or does not match its digest, 4 keys or certificates, 5 templates, 6 output or
a failed check, 130 interrupted.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        log.result(f"bundler {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Run a command. A known error is a message and an exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except BundlerError as error:
        log.error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _print_interrupted()
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # Typer ends the process without a message
            _print_interrupted()
        raise
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:  # such as a deleted file or a failing disk
        where = f"{error.filename}: " if error.filename else ""
        log.error(
            f"{where}{error.strerror or error}",
            f"solve the problem and run the command again; {KEPT}",
        )
        sys.exit(OutputError.exit_code)


def _print_interrupted() -> None:
    log.error(f"interrupted; {KEPT}")
