"""`bundler tokens renew`: new bootstrap tokens, and small bundles that bring them to the hosts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated

import typer

from bundler import log
from bundler.cli.complete import complete_worker
from bundler.cli.json_output import Value, print_json
from bundler.cli.media import SealOption, SinceOption
from bundler.cli.options import DeltaOutput, DryRun, Json, SigningKey, with_inputs
from bundler.cli.state_change import change_and_build, check_together
from bundler.cluster.plan import worker_names
from bundler.cluster.schema import Cluster
from bundler.errors import ConfigError
from bundler.project import Inputs, check_state, load
from bundler.state.directory import open_state
from bundler.state.tokens import Token, list_nodes_with_tokens, renew_tokens

Nodes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NODE]...", help="Names of workers.", autocompletion=complete_worker),
]
Everything = Annotated[bool, typer.Option("--all", help="Renew the token of every worker.")]
NEXT_STEP = (
    "Then: install the bundle of one control plane, which revokes the former tokens in the cluster;"
    " then install the new bundle of each host that is to join"
)


@with_inputs()
def renew_command(
    inputs: Inputs,
    nodes: Nodes = None,
    everything: Everything = False,
    since: SinceOption = None,
    output: DeltaOutput = None,
    sign: SigningKey = None,
    seal: SealOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give workers new bootstrap tokens, and revoke their former ones.

    A bootstrap token is used once: when the kubelet of its node joins, the control planes delete
    it. A host that is installed again under the same name, or whose kubelet certificate has ended,
    needs a new token. Tokens in a lost bundle are revoked the same way. Nodes that have joined are
    not affected.

    1. bundler tokens renew worker1 --since dist/ -o renewal/: makes a new token in the state
    directory, and builds small bundles: deltas to those in dist/. Without --since and -o, only the
    state changes, and the next `bundler build` contains the new tokens.

    2. Install the new bundle of one control plane. It revokes the former tokens in the cluster.

    3. Install the new bundle on the host that is to join. A host that was installed again needs a
    complete bundle, from `bundler build -o dist/`.
    """
    now = datetime.now(UTC)
    check_together(since, output)
    project = load(inputs)
    check_state(project)
    cluster, directory = project.cluster, project.state_path
    chosen = _choose(nodes or [], cluster, everything=everything)

    def renew(*, dry_run: bool) -> Mapping[str, Token]:
        with open_state(directory) as state:
            known = list_nodes_with_tokens(state)
            names = [name for name in chosen if name in known or not everything]
            return renew_tokens(state, names, now, cluster.pki.token_days, dry_run=dry_run)

    planned = renew(dry_run=True)
    if dry_run:
        _print_tokens(planned, as_json=as_json)
        log.info(f"{len(planned)} tokens would be renewed; nothing was changed")
        return
    change_and_build(
        lambda: _print_tokens(renew(dry_run=False), as_json=as_json),
        project,
        since,
        output,
        sign,
        seal,
    )
    log.info(NEXT_STEP)


def _choose(nodes: list[str], cluster: Cluster, *, everything: bool) -> list[str]:
    """The workers to renew; raises ConfigError for a name that is not a worker's."""
    if bool(nodes) == everything:
        raise ConfigError("give either names of workers, or --all")
    workers = worker_names(cluster)
    unknown = [name for name in nodes if name not in workers]
    if unknown:
        close = get_close_matches(unknown[0], workers, n=1)
        raise ConfigError(
            f"{', '.join(unknown)}: not a worker of {cluster.name}; only kubelets have tokens",
            hint=f"did you mean {close[0]}?" if close else f"workers: {', '.join(workers)}",
        )
    return workers if everything else list(dict.fromkeys(nodes))


def _print_tokens(tokens: Mapping[str, Token], *, as_json: bool) -> None:
    """Print everything but the tokens themselves."""
    if as_json:
        rows: list[Value] = [
            {
                "node": node,
                "generation": token.generation,
                "expires": token.expires.isoformat(),
            }
            for node, token in tokens.items()
        ]
        print_json("tokens", tokens=rows)
        return
    for node, token in tokens.items():
        log.result(
            f"{node}: generation {token.generation}, ends on {token.expires:%Y-%m-%d %H:%M} UTC"
        )
