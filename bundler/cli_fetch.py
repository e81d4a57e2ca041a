"""`bundler fetch` and `bundler lock`: what crosses the gate, before anything is built."""

from typing import Annotated

import typer

from bundler import gather, log
from bundler.cli_options import (
    CLUSTER_YAML,
    CachePath,
    Description,
    Mirrors,
    Offline,
    Pins,
    Quiet,
    Strict,
    make_inputs,
    shown,
)


def fetch_command(
    config: Description = CLUSTER_YAML,
    mirror: Mirrors = None,
    offline: Offline = False,
    pins: Pins = None,
    cache: CachePath = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Bring every file that cluster.yaml needs from outside into the cache, and check its digest.

    Upstream's files, and the OS packages that cluster.lock.yaml names.

    Several at once; a download that was cut short goes on where it stopped, and what is whole is
    not read again. No keys are made and nothing is built: `bundler cache export` then carries the
    files to a builder without a network.

    Prints one line a file on stdout: digest, size, path in the cache.
    """
    log.set_quiet(quiet)
    inputs = make_inputs(config, cache, mirror, pins, None, offline=offline, strict=strict)
    for artifact, path in gather.fetch(inputs):
        size = path.stat().st_size
        print(f"{artifact.algorithm}:{artifact.digest}  {size:>12}  {shown(path)}")


def lock_command(
    config: Description = CLUSTER_YAML,
    update: Annotated[
        list[str] | None,
        typer.Option(
            "--update",
            help="Renew this entry, such as etcd, all of a kind (`packages`), or `all`. May be "
            "repeated.",
        ),
    ] = None,
    mirror: Mirrors = None,
    offline: Offline = False,
    pins: Pins = None,
    cache: CachePath = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and write no lock.")
    ] = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Write cluster.lock.yaml: the exact URL, size and digest of all that a build takes.

    Each entry says on whose word its digest is believed: `catalog` (built in, with its source),
    `user` (cluster.yaml), `upstream-checksum` (the file that upstream publishes beside it) or
    `first-use` (nobody: what the URL gave). From then on `build` takes nothing else, and refuses
    when cluster.yaml asks for something else.

    An entry that is in the lock stays as it is until --update names it. Files come into the cache.
    Prints one line an entry on stdout: what became of it, name, version, architecture, origin,
    digest.
    """
    log.set_quiet(quiet)
    inputs = make_inputs(config, cache, mirror, pins, None, offline=offline, strict=strict)
    for change in gather.update_lock(inputs, update or [], dry_run=dry_run):
        entry = change.entry
        print(
            f"{change.what:8} {entry.name:18} {entry.version:10} {entry.arch:6}"
            f" {entry.origin:18} {entry.digest}"
        )
