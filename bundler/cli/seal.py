"""`bundler seal renew`: new unseal codes."""

from typing import Annotated

import typer

from bundler import log
from bundler.bundle.seal_keys import renew_codes
from bundler.cli.complete import complete_node
from bundler.cli.options import CLUSTER_YAML, Description, State
from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError
from bundler.paths import default_state
from bundler.state.directory import check_is_state, open_state


def renew_command(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...", help="The nodes to change.", autocompletion=complete_node
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Change every node.")] = False,
    config: Description = CLUSTER_YAML,
    state: State = None,
) -> None:
    """Replace unseal codes, because somebody else saw them.

    The next `bundler build --seal` uses the new codes, and writes them to UNSEAL.tsv. Bundles that
    are built already keep their codes: their keys and tokens must be replaced as well if a bundle
    is lost too. See docs/guides/lost-media.md.
    """
    cluster = load_cluster(config).cluster
    known = [node.name for node in cluster.nodes]
    chosen = known if everything else nodes or []
    if bool(nodes) == everything:
        raise ConfigError("give either names of nodes, or --all")
    if unknown := sorted(set(chosen) - set(known)):
        raise ConfigError(
            f"there is no node {', '.join(unknown)}", hint=f"the nodes are {', '.join(known)}"
        )
    directory = state or default_state(config, cluster.name)
    check_is_state(directory)
    with open_state(directory) as opened:
        renew_codes(opened, chosen)
    log.info(f"{len(chosen)} unseal codes replaced. Next: bundler build --seal -o DIR")
