"""`bundler check`."""

from bundler import log
from bundler.cli.options import CLUSTER_YAML, Description, Pins, Quiet, Strict, make_inputs
from bundler.project import check


def check_command(
    config: Description = CLUSTER_YAML,
    pins: Pins = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Validate cluster.yaml, its images and its pins, without writing anything.

    Reports all problems at once, each with its line. Needs no network.
    """
    cluster = check(
        make_inputs(config, pins=pins, offline=True, strict=strict, quiet=quiet)
    ).cluster
    log.info(f"{config}: cluster {cluster.name}, {len(cluster.nodes)} nodes: no problems found")
