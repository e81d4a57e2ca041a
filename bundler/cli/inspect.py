"""`bundler inspect`: a bundle or a payload file, and the documents in a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.bundle.documents import VEX
from bundler.bundle.inspect import BundleReport, read_document
from bundler.bundle.inspect import inspect as read_bundle
from bundler.bundle.provenance import PROVENANCE
from bundler.bundle.sbom import SBOM
from bundler.bundle.shared_payload import inspect_shared
from bundler.cli.json_output import Value, print_json
from bundler.cli.media import describe_source, is_payload
from bundler.cli.options import Json
from bundler.errors import ConfigError
from bundler.files import SECRET_MODE


def inspect_command(
    bundle: Annotated[
        Path, typer.Argument(help="The tarball of a node, a payload file, or a volume of either.")
    ],
    as_json: Json = False,
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Print the SBOM (CycloneDX, JSON) and nothing else.")
    ] = False,
    vex: Annotated[
        bool,
        typer.Option(
            "--vex",
            help="Print the OpenVEX statements (JSON: what does not apply) and nothing else.",
        ),
    ] = False,
    provenance: Annotated[
        bool,
        typer.Option(
            "--provenance", help="Print the SLSA provenance (in-toto, JSON) and nothing else."
        ),
    ] = False,
) -> None:
    """Show the contents of a bundle, after checking every file against its manifest.

    A payload file (--layout split) is checked against its own list of digests.

    Exit code 6 if a check fails.
    """
    if as_json + sbom + vex + provenance > 1:
        raise ConfigError("give only one of --json, --sbom, --vex and --provenance")
    if is_payload(bundle):
        if sbom or vex or provenance:
            raise ConfigError(f"{bundle}: a payload file has no documents; see the nodes' tarballs")
        _print_payload(bundle, as_json=as_json)
        return
    report = read_bundle(bundle)
    if sbom or vex or provenance:
        document = read_document(bundle, report, SBOM if sbom else VEX if vex else PROVENANCE)
        log.result(document.decode(), end="")
    elif as_json:
        print_json("inspect", **_as_data(report))
    else:
        for key, value in report.facts.items():
            log.result(f"{key.lower().replace('_', ' '):20}{value}")
        for entry in report.entries:
            log.result(
                f"{entry.mode:04o} {entry.size:>12} {entry.sha256[:16]} {entry.path}"
                f"{describe_source(report.parsed, entry.path)}"
            )
        for path in report.parsed.seal.tags if report.parsed.seal else ():
            log.result(
                f"{SECRET_MODE:04o} {'':>12} {'':16} {path}{describe_source(report.parsed, path)}"
            )
    _exit_on_faults(report.faults)
    log.info(f"{len(report.entries)} files, all match the manifest")
    if seal := report.parsed.seal:
        log.info(
            f"{len(seal.tags)} more files are sealed: only install.sh with the code reads them"
        )


def _as_data(report: BundleReport) -> dict[str, Value]:
    files: list[Value] = [
        {"path": e.path, "mode": f"{e.mode:04o}", "size": e.size, "sha256": e.sha256}
        for e in report.entries
    ]
    return {
        "facts": report.facts,
        "files": files,
        "elsewhere": report.parsed.absent,
        "faults": report.faults,
    }


def _print_payload(path: Path, *, as_json: bool) -> None:
    report = inspect_shared(path)
    files = sorted(report.files)
    if as_json:
        facts = {"PAYLOAD": report.identity}
        print_json("inspect-payload", facts=facts, files=files, faults=report.faults)
    else:
        log.result("\n".join([f"{'payload':20}{report.identity}", *files]))
    _exit_on_faults(report.faults)
    log.info(f"{len(files)} files, all match their digests")


def _exit_on_faults(faults: tuple[str, ...]) -> None:
    for fault in faults:
        log.error(fault)
    if faults:
        raise typer.Exit(6)
