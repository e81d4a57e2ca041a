"""`bundler audit`: what is known against the contents of bundles."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bundler import log
from bundler.audit.advisory import SEVERITIES, Database
from bundler.audit.built_in import BuiltIn
from bundler.audit.compare import UNRATED, Finding, Result, compare
from bundler.audit.database import open_database
from bundler.audit.openvex import make_openvex
from bundler.audit.parts import Contents, list_cluster_parts, read_bundle_parts
from bundler.bundle.front import TARBALL
from bundler.bundle.inspect import inspect
from bundler.cli.json_output import print_json
from bundler.cli.options import Json, Pins, make_inputs
from bundler.errors import ConfigError, OutputError
from bundler.files import write_atomically
from bundler.formats.volumes import joined_name
from bundler.private_files import FILE_MODE
from bundler.project import load, read_source_date, resolve

FOUND = 1
"""Exit code: a vulnerability at or above --fail-on."""
KEPT = 1 << 16
"""Bytes of a configuration file that is searched for settings."""


class Severity(StrEnum):
    """The severities of --fail-on."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def audit_command(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLE", help="A bundle, a directory of bundles such as dist/, or several."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="A cluster.yaml, before anything is built."),
    ] = None,
    pins: Pins = None,
    db: Annotated[
        list[Path] | None,
        typer.Option(
            "--db",
            metavar="FILE",
            help="Compare with these advisories too: a zip or a directory of OSV, Grype's"
            " vulnerability.db, the JSON of Debian's security tracker, or Red Hat's CSAF (a file, a"
            " directory, its .tar.zst). May be repeated.",
        ),
    ] = None,
    fail_on: Annotated[
        Severity | None,
        typer.Option(
            "--fail-on",
            metavar="SEVERITY",
            help="Exit with code 1 for a vulnerability of this severity or above: low, medium,"
            " high or critical. One that nobody rated counts as the highest.",
        ),
    ] = None,
    vex: Annotated[
        Path | None,
        typer.Option(
            "--vex", metavar="FILE", help="Write what does not apply as OpenVEX statements."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare bundles, or cluster.yaml, with known vulnerabilities; needs no network.

    Upstream files, images of Kubernetes, OS packages, and packages inside images are compared with
    bundler's own table, which is short, and with each --db. The age of each is printed first.

    Exit code 1 with --fail-on if there is such a vulnerability, 3 if a --db cannot be read, 6 if a
    bundle cannot be read.
    """
    if bool(bundles) == bool(config):
        raise ConfigError(
            "give bundles, or -c cluster.yaml", hint="for example bundler audit dist/"
        )
    contents = [_load_cluster(config, pins)] if config else list(_read_bundles(bundles or ()))
    databases: list[Database] = [BuiltIn(), *map(open_database, db or ())]
    result = compare(contents, databases)
    today = datetime.now(UTC).date()
    if as_json:
        print_json("audit", **_as_data(result, databases, contents, today))
    else:
        for line in (*_show_ages(databases, today), *_show_result(result, contents)):
            log.result(line)
    if vex:
        epoch = read_source_date()
        now = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(epoch, UTC)
        write_atomically(vex, make_openvex(result.not_affected, now), FILE_MODE)
    least = SEVERITIES.index(fail_on) if fail_on else len(SEVERITIES) + 1
    if any(one.rank >= least for one in result.findings):
        raise typer.Exit(FOUND)


def _load_cluster(description: Path, pins: Path | None) -> Contents:
    project = load(make_inputs(description, pins=pins, offline=True), quiet=True)
    return list_cluster_parts(project.plan, resolve(project))


def _read_bundles(paths: Sequence[Path]) -> Iterator[Contents]:
    for path in paths:
        for bundle in list_tarballs(path) if path.is_dir() else [path]:
            report = inspect(bundle, keep=KEPT)
            if report.faults:
                raise OutputError("\n".join(f"{bundle}: {fault}" for fault in report.faults))
            name = bundle.name.removesuffix(".tar.gz")
            yield read_bundle_parts(name, report.texts)


def list_tarballs(directory: Path) -> list[Path]:
    """The bundles in a directory, each once; OutputError without a bundle."""
    names = sorted({joined_name(path.name) for path in directory.iterdir()})
    found = [directory / name for name in names if TARBALL.search(name)]
    if not found:
        raise OutputError(f"{directory}: there is no bundle in it", hint="bundler build -o DIR")
    return found


def _show_ages(databases: Sequence[Database], today: date) -> Iterator[str]:
    width = max(len(one.name) for one in databases)
    for one in databases:
        days = (today - one.day).days
        age = "1 day old" if days == 1 else f"{days} days old"
        yield f"{one.name:{width}}  {one.day}  {age}, {one.size} advisories"
    yield ""


def _show_result(result: Result, contents: Sequence[Contents]) -> Iterator[str]:
    yield from _show_table(result.findings, len(contents))
    if result.not_affected:
        yield "Not affected:"
        for one in result.not_affected:
            reason = one.not_affected.reason if one.not_affected else ""
            yield f"  {one.id}  {one.part.label}: {reason}"
        yield ""
    if result.unknown:
        yield "Not compared:"
        yield from (f"  {text}" for text in result.unknown)
        yield ""
    if result.assumed:
        yield f"Compared as upstream's releases, but pinned otherwise: {', '.join(result.assumed)}."
        yield "  If a distribution made such a file, name its package: artifacts.NAME.made_from"
        yield ""
    count = len(result.findings)
    yield (
        f"{count} known {'vulnerability' if count == 1 else 'vulnerabilities'} in"
        f" {result.compared} components; not affected by {len(result.not_affected)} more"
    )


def _show_table(findings: Sequence[Finding], bundles: int) -> Iterator[str]:
    rows = [
        (one.severity or UNRATED, one.id, one.part.label, ", ".join(one.fixes) or "no fix known")
        for one in findings
    ]
    if not rows:
        return
    rows.insert(0, ("severity", "id", "component", "fixed in"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for index, row in enumerate(rows):
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        if index and findings[index - 1].summary:
            yield f"{'':{widths[0]}}  {findings[index - 1].summary}"
        if index and 0 < len(findings[index - 1].holders) < bundles:
            yield f"{'':{widths[0]}}  in {', '.join(findings[index - 1].holders)}"
    yield ""


def _as_data(
    result: Result, databases: Sequence[Database], contents: Sequence[Contents], today: date
) -> dict[str, Any]:
    return {
        "databases": [
            {
                "name": one.name,
                "date": str(one.day),
                "days_old": (today - one.day).days,
                "advisories": one.size,
            }
            for one in databases
        ],
        "audited": [one.name for one in contents],
        "compared": result.compared,
        "vulnerabilities": [_describe(one) for one in result.findings],
        "not_affected": [_describe(one) for one in result.not_affected],
        "not_compared": result.unknown,
        "assumed_upstream": result.assumed,
    }


def _describe(one: Finding) -> dict[str, Any]:
    reason = {"not_affected": asdict(one.not_affected)} if one.not_affected else {}
    return {
        "id": one.id,
        "aliases": one.aliases,
        "severity": one.severity or None,
        "component": one.part.name,
        "version": one.part.version,
        "purls": one.purls,
        **({"image": one.part.image} if one.part.image else {}),
        "bundles": one.holders,
        "summary": one.summary,
        "fixed_in": one.fixes,
        "databases": one.databases,
        **reason,
    }
