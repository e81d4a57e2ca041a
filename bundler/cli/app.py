"""The command line: parses, calls, prints. Results on stdout, all else on stderr."""

import json
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from bundler import __version__, log, pipeline
from bundler.bundle.inspect import inspect as read_bundle
from bundler.bundle.layout import Layout, Media
from bundler.bundle.signing import generate_key
from bundler.bundle.verify import compare
from bundler.bundle.verify import verify as verify_bundles
from bundler.catalog import COMPONENTS, find_artifact, list_versions
from bundler.cli import (
    admin,
    cache,
    certs,
    diff,
    explain,
    fetch,
    plan,
    state,
)
from bundler.cli.documents import ProvenanceOption, SbomOption, print_document
from bundler.cli.media import (
    LayoutOption,
    PublicOnlyOption,
    SinceOption,
    SplitOption,
    describe_files,
    describe_source,
    is_payload,
    make_media,
    next_step,
    print_payload,
    print_verdicts,
)
from bundler.cli.options import (
    CLUSTER_YAML,
    Description,
    Pins,
    Quiet,
    make_inputs,
    shown,
    with_inputs,
)
from bundler.cluster.values import Arch
from bundler.errors import BundlerError, ConfigError, OutputError
from bundler.project import Inputs, check

INTERRUPTED = 130
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Offline bundles for Kubernetes on plain hosts.

Write a cluster.yaml, run `bundler build -c cluster.yaml -o dist/`, carry dist/ to the site, unpack
each node's tarball on its host and run `./install.sh` there. `./verify.sh` on a control-plane node
proves the cluster.

Exit codes: 0 done, 2 cluster.yaml or the command line is wrong, 3 an upstream file or image cannot
be had or is not what its pin says, 4 keys or certificates, 5 templates, 6 output, 130 interrupted.
""",
)

app.command("fetch")(fetch.fetch_command)
app.command("lock")(fetch.lock_command)
app.add_typer(cache.app, name="cache")
app.add_typer(admin.app, name="admin")
app.add_typer(certs.app, name="certs")
app.add_typer(state.app, name="state")
app.command("diff")(diff.diff_command)
app.command("plan")(plan.plan_command)
app.command("explain")(explain.explain_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bundler {__version__}")
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


@app.command("build")
@with_inputs()
def build_command(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write.")] = Path("dist"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", help="Sign with this key (bundler keygen).", metavar="KEY"),
    ] = None,
    layout: LayoutOption = Layout.FULL,
    split: SplitOption = None,
    since: SinceOption = None,
    public_only: PublicOnlyOption = False,
) -> None:
    """Make one tarball per node, and SHA256SUMS.

    Upstream files come from the cache, then from each --mirror, then from upstream, and are used
    only if they are what their pin says: that of cluster.lock.yaml beside cluster.yaml, if there is
    one (see `bundler lock`), else cluster.yaml's, else a built-in one. Keys and certificates are
    created once in the state directory and reused. The same inputs give the same bytes.

    Prints one line a file on stdout: digest, size, path.
    """
    media = make_media(layout, split, since, public_only=public_only)
    if dry_run:
        _print_preview(inputs, output, media)
        return
    for file in pipeline.build(inputs, output, signing_key=sign, media=media):
        print(f"{file.sha256}  {file.size:>12}  {shown(file.path)}")
    log.info(next_step(media))


@app.command("check")
def check_command(
    config: Description = CLUSTER_YAML, pins: Pins = None, quiet: Quiet = False
) -> None:
    """Validate cluster.yaml, its images and its pins; all faults at once; writes nothing."""
    cluster = check(make_inputs(config, pins=pins, offline=True, quiet=quiet)).cluster
    log.info(f"{config}: cluster {cluster.name}, {len(cluster.nodes)} nodes: no fault found")


@app.command("render")
@with_inputs("strict")
def render_command(
    inputs: Inputs,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where each node's tree is written.")
    ],
    text_only: Annotated[
        bool,
        typer.Option("--text-only", help="Leave out binaries and images; needs no download."),
    ] = False,
) -> None:
    """Write the bundles' contents as plain files, for review and diff.

    The trees hold private keys, like the bundles: files that hold one are for root only.
    """
    for directory in pipeline.render(inputs, output, text_only=text_only):
        print(directory)


@app.command("inspect")
def inspect_command(
    bundle: Annotated[Path, typer.Argument(help="A node's tarball or payload file, or a volume.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    sbom: SbomOption = False,
    provenance: ProvenanceOption = False,
) -> None:
    """Show what a bundle is and holds, after checking every file against its manifest.

    A payload file of the layout `split` is checked against its own list of digests.
    """
    if as_json + sbom + provenance > 1:
        raise ConfigError("give one of --json, --sbom and --provenance")
    if is_payload(bundle):
        if sbom or provenance:
            raise ConfigError(f"{bundle}: the documents are in the nodes' tarballs")
        print_payload(bundle, as_json=as_json)
        return
    report = read_bundle(bundle)
    if print_document(bundle, report, sbom=sbom, provenance=provenance):
        pass
    elif as_json:
        files = [
            {"path": e.path, "mode": f"{e.mode:04o}", "size": e.size, "sha256": e.sha256}
            for e in report.entries
        ]
        print(
            json.dumps(
                {
                    "facts": report.facts,
                    "files": files,
                    "elsewhere": report.parsed.absent,
                    "faults": report.faults,
                },
                indent=2,
            )
        )
    else:
        for key, value in report.facts.items():
            print(f"{key.lower().replace('_', ' '):20}{value}")
        for entry in report.entries:
            print(
                f"{entry.mode:04o} {entry.size:>12} {entry.sha256[:16]} {entry.path}"
                f"{describe_source(report.parsed, entry.path)}"
            )
    for fault in report.faults:
        log.error(fault)
    if report.faults:
        raise typer.Exit(6)
    log.info(f"{len(report.entries)} files, all as the manifest says")


@app.command("keygen")
def keygen_command(
    path: Annotated[Path, typer.Argument(help="The private key's file; PATH with .pub beside it.")],
) -> None:
    """Make a key that signs bundles (ECDSA P-256): `build --sign` uses it, hosts trust its .pub.

    Keep the private key where you build; carry the .pub to the hosts on another way than the
    bundles, into /etc/bundler/trust.d or for `install.sh --trust`.
    """
    public = generate_key(path)
    print(f"{path}\n{public}")


@app.command("verify")
def verify_command(
    directory: Annotated[Path, typer.Argument(help="What `bundler build -o` wrote.")],
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", help="A public key that must have signed all.", metavar="PUB"),
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option(
            "--public", help="Compare with what `build --public-only` wrote.", metavar="DIR"
        ),
    ] = None,
) -> None:
    """Check every bundle of a directory: its digest in SHA256SUMS, each file in its manifest.

    With --trust (may be given several times) SHA256SUMS and each manifest must be signed by one of
    these keys. With --public every file of a bundle that is no secret must be the one that a second
    person built.
    """
    verdicts = tuple(print_verdicts("ok", verify_bundles(directory, tuple(trust or ()))))
    if public:
        others = tuple(print_verdicts("ok", verify_bundles(public)))
        verdicts += others + tuple(print_verdicts("same", compare(directory, verdicts, others)))
    if any(verdict.faults for verdict in verdicts):
        raise typer.Exit(6)


@app.command("versions")
def versions_command(
    component: Annotated[str | None, typer.Argument(help="One component only.")] = None,
) -> None:
    """List the versions that have built-in pins: component, version, architectures."""
    if component is not None and component not in COMPONENTS:
        close = get_close_matches(component, COMPONENTS, n=1)
        raise ConfigError(
            f"{component}: unknown component; known: {', '.join(COMPONENTS)}",
            hint=f"did you mean '{close[0]}'?" if close else None,
        )
    for name in (component,) if component else COMPONENTS:
        for version in list_versions(name):
            arches = [arch for arch in Arch if find_artifact(name, version, arch)]
            print(f"{name:18} {version:12} {' '.join(arches)}")


def _print_preview(inputs: Inputs, output: Path, media: Media) -> None:
    preview = pipeline.preview(inputs, media)
    for artifact, is_cached in preview.artifacts:
        print(f"{'cached' if is_cached else 'fetch '}  {artifact.url}")
        print(f"        {artifact.algorithm} {artifact.digest} ({artifact.source})")
    if packages := preview.cluster.packages:
        print(f"package what {packages.os} lacks: as locked, or resolved by the build")
    for image in preview.cluster.images:
        print(f"image   {image.ref}  {image.file or 'from its registry'}")
    if preview.state:
        print(f"{'reuse ' if preview.state.is_dir() else 'create'}  {preview.state}")
    for line in describe_files(output, preview.bundles, preview.bases, media):
        print(line)


def main() -> None:
    """Run; a known fault is a message and an exit code, never a traceback."""
    try:
        app(standalone_mode=True)
    except BundlerError as error:
        log.error(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _explain_interrupt()
        sys.exit(INTERRUPTED)
    except SystemExit as ended:  # Typer's own answer to an interrupt says nothing
        if ended.code == INTERRUPTED:
            _explain_interrupt()
        raise
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:  # what no place foresaw: a file that went meanwhile, a disk that fails
        where = f"{error.filename}: " if error.filename else ""
        log.error(
            f"{where}{error.strerror or error}",
            "mend what that names; what is whole is kept, and the next run goes on from there",
        )
        sys.exit(OutputError.exit_code)


def _explain_interrupt() -> None:
    log.error("interrupted: what is whole is kept, and the next run goes on from there")
