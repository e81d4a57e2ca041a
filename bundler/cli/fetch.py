"""`bundler fetch` and `bundler lock`: downloads without a build."""

from typing import Annotated

import typer

from bundler import downloads, log
from bundler.cli.complete import complete_lock_name
from bundler.cli.json_output import print_json
from bundler.cli.options import Json, shown, with_inputs
from bundler.project import Inputs
from bundler.sources.lock import lock_path
from bundler.urls import show_url


@with_inputs("state", "new_state")
def fetch_command(inputs: Inputs, as_json: Json = False) -> None:
    """Download every file that cluster.yaml needs into the cache.

    That is: upstream files, images from registries, and the OS packages in cluster.lock.yaml. Each
    must match its digest. Downloads run in parallel, and an interrupted download resumes. No keys
    are created and nothing is built. `bundler cache export` packs the files for a builder without a
    network.

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY are used.

    Prints one line per file: digest, size, path in the cache.
    """
    found = [(artifact, path, path.stat().st_size) for artifact, path in downloads.fetch(inputs)]
    if as_json:
        print_json(
            "fetch",
            files=[
                {
                    "name": artifact.component,
                    "version": artifact.version,
                    "arch": artifact.arch,
                    "digest": artifact.pin,
                    "size": size,
                    "url": show_url(artifact.url),
                    "path": str(path),
                }
                for artifact, path, size in found
            ],
        )
        return
    for artifact, path, size in found:
        log.result(f"{artifact.pin}  {size:>12}  {shown(path)}")


@with_inputs("state", "new_state")
def lock_command(
    inputs: Inputs,
    update: Annotated[
        list[str] | None,
        typer.Option(
            "--update",
            metavar="NAME",
            help="Renew this entry, such as etcd, or all of one kind (`packages`), or `all`. May be"
            " repeated.",
            autocompletion=complete_lock_name,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes; write no lock.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write cluster.lock.yaml: the URL, size and digest of every file that a build takes.

    With a lock, `bundler build` takes exactly these files, and fails if cluster.yaml needs others.
    An entry changes only if --update names it. The files are downloaded into the cache.

    Each entry names the trust source of its digest: `catalog` (built in), `user` (cluster.yaml),
    `upstream-signature`, `upstream-checksum` (the checksum file that upstream publishes), or
    `first-use` (no source: the digest of the first download).

    Prints one line per entry: change, name, version, architecture, trust source, digest.
    """
    changes = downloads.update_lock(inputs, update or [], dry_run=dry_run)
    if as_json:
        entries = [(change.what, change.entry) for change in changes]
        print_json(
            "lock",
            path=str(lock_path(inputs.description)),
            written=not dry_run,
            entries=[
                {
                    "change": what,
                    "kind": entry.kind.value,
                    "name": entry.name,
                    "version": entry.version,
                    "arch": entry.arch,
                    "trust": entry.origin.value,
                    "digest": entry.digest,
                    "size": entry.size,
                    "url": entry.url,
                }
                for what, entry in entries
            ],
        )
        return
    for change in changes:
        entry = change.entry
        log.result(
            f"{change.what:8} {entry.name:18} {entry.version:10} {entry.arch:6}"
            f" {entry.origin:18} {entry.digest}"
        )
