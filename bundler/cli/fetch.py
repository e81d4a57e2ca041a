"""`bundler fetch` and `bundler lock`: what crosses the gate, before anything is built."""

from typing import Annotated

import typer

from bundler import downloads
from bundler.cli.options import shown, with_inputs
from bundler.project import Inputs


@with_inputs("state")
def fetch_command(inputs: Inputs) -> None:
    """Bring every file that cluster.yaml needs from outside into the cache, and check its digest.

    Upstream's files, images of registries, and the OS packages that cluster.lock.yaml names.

    Several at once; a download that was cut short goes on where it stopped, and what is whole is
    not read again. No keys are made and nothing is built: `bundler cache export` then carries the
    files to a builder without a network. Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    Prints one line a file on stdout: digest, size, path in the cache.
    """
    for artifact, path in downloads.fetch(inputs):
        print(f"{artifact.pin}  {path.stat().st_size:>12}  {shown(path)}")


@with_inputs("state")
def lock_command(
    inputs: Inputs,
    update: Annotated[
        list[str] | None,
        typer.Option(
            "--update",
            help="Renew this entry, such as etcd, all of a kind (`packages`), or `all`. May be "
            "repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, and write no lock.")
    ] = False,
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
    for change in downloads.update_lock(inputs, update or [], dry_run=dry_run):
        entry = change.entry
        print(
            f"{change.what:8} {entry.name:18} {entry.version:10} {entry.arch:6}"
            f" {entry.origin:18} {entry.digest}"
        )
