"""`bundler keygen`."""

from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.bundle.signing import generate_key


def keygen_command(
    path: Annotated[
        Path, typer.Argument(help="The file for the private key; the public key goes to PATH.pub.")
    ],
) -> None:
    """Create a key that signs bundles (ECDSA P-256).

    `bundler build --sign` uses the private key: keep it on the builder. Hosts trust the public key:
    copy PATH.pub to /etc/bundler/trust.d on each host, or give it to `install.sh --trust`. Use
    another way than the one that carries the bundles.

    Prints both paths.
    """
    public = generate_key(path)
    log.result(f"{path}\n{public}")
