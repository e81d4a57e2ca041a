"""`bundler check`."""

import re
from collections.abc import Iterator
from pathlib import Path

import typer

from bundler import log
from bundler.cli.json_output import Value, print_json
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Json,
    Pins,
    Quiet,
    Strict,
    Verbose,
    make_inputs,
)
from bundler.errors import BundlerError
from bundler.project import Inputs, Project, check

PROBLEM = re.compile(
    r"(?P<file>.+?):(?P<line>\d+):(?P<column>\d+): (?:(?P<key>[^\s:]+): )?(?P<text>.*)", re.DOTALL
)
"""`file:line:column: key: text`, as the loader writes each problem."""


def check_command(
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    strict: Strict = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Validate cluster.yaml, its images and its pins, without writing anything.

    Reports all problems at once, each with its line. Needs no network.

    With --json the report is on stdout, also of a file that is refused; the exit code is the same.
    """
    inputs = make_inputs(
        config, pins=pins, offline=True, strict=strict, quiet=quiet, verbose=verbose
    )
    if as_json:
        _check_for_machines(config, inputs)
        return
    cluster = check(inputs).cluster
    log.info(f"{config}: cluster {cluster.name}, {len(cluster.nodes)} nodes: no problems found")


def _check_for_machines(config: Path, inputs: Inputs) -> None:
    warnings: list[str] = []
    try:
        with log.collect_warnings(warnings):
            project = check(inputs)
    except BundlerError as error:
        _print_report(config, None, warnings, error)
        raise typer.Exit(error.exit_code) from error
    _print_report(config, project, warnings, None)


def _print_report(
    config: Path, project: Project | None, warnings: list[str], error: BundlerError | None
) -> None:
    cluster = project.cluster if project else None
    faults = error.message.splitlines() if error else []
    problems = [*_as_data("error", faults), *_as_data("warning", warnings)]
    print_json(
        "check",
        file=str(config),
        ok=error is None,
        cluster=cluster.name if cluster else None,
        kubernetes=cluster.kubernetes.version if cluster else None,
        nodes=len(cluster.nodes) if cluster else None,
        problems=problems,
        fix=error.hint if error else None,
    )


def _as_data(level: str, lines: list[str]) -> Iterator[dict[str, Value]]:
    for line in lines:
        found = PROBLEM.fullmatch(line)
        place = found.groupdict() if found else {}
        yield {
            "level": level,
            "file": place.get("file"),
            "line": int(place["line"]) if place else None,
            "column": int(place["column"]) if place else None,
            "key": place.get("key"),
            "text": place.get("text") or line,
        }
