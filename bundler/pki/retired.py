"""Certificates that the whole cluster shared in earlier versions: moved to the archive."""

from collections.abc import Iterator
from datetime import datetime

from bundler.state.directory import State
from bundler.state.replaced import keep_replaced
from bundler.state.transaction import write_transaction

RETIRED = {
    "flannel": "flannel uses the certificate of its node's kubelet",
    "flannel-etcd-client": "each worker has its own",
    "kube-proxy": "each worker has its own",
}


def archive_retired(state: State, now: datetime) -> Iterator[str]:
    """Move them to the archive; yields a line for each."""
    for name, why in RETIRED.items():
        directory = state.directory / "pki" / name
        if not directory.is_dir():
            continue
        keep_replaced(directory, state, now)
        files = [path.relative_to(state.directory).as_posix() for path in directory.iterdir()]
        write_transaction(state.directory, {}, files)
        directory.rmdir()
        yield f"{name} of the cluster: archived, because {why}"
