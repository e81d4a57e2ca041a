"""Checks of the files with which a server of the site is reached: CA, client certificate, key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bundler.cluster.problem import Problem


class Client(Protocol):
    """What cluster.yaml says about them; paths on the builder."""

    @property
    def ca(self) -> Path | None: ...
    @property
    def certificate(self) -> Path | None: ...
    @property
    def key(self) -> Path | None: ...


def check_client(client: Client, where: tuple[str | int, ...]) -> Iterator[Problem]:
    """Yield files that cannot be read or do not go together; `where` is the place of the keys."""
    from bundler.formats.client_files import (  # noqa: PLC0415 - slow to import
        find_ca_faults,
        find_pair_faults,
    )

    if client.ca:
        for text in find_ca_faults(client.ca):
            yield Problem(path=(*where, "ca"), text=text)
    if client.certificate and client.key:
        for text in find_pair_faults(client.certificate, client.key):
            yield Problem(path=(*where, "key"), text=text)
    elif client.certificate or client.key:
        missing = "key" if client.certificate else "certificate"
        yield Problem(path=where, text=f"has one of certificate and key: add {missing}")
