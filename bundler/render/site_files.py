"""The files of a site, as cluster.yaml has them, and the table by which hosts treat them."""

from collections.abc import Iterator

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.site_files import ROOTFS
from bundler.overlays.files import list_paths
from bundler.render.tree import File

SITE_FILES = "lib/site-files.tsv"
NONE = "-"
HEADING = (
    "# Files of cluster.yaml: PATH OWNER RESTART RELOAD, separated by tabs; units by spaces.\n"
)


def make_site_files(node: NodePlan) -> Iterator[File]:
    """Yield each file of the site on a node, and their table if there is one.

    Raises ConfigError if a source cannot be read.
    """
    for each in node.files:
        yield File(
            path=ROOTFS + each.path, mode=each.mode, content=each.read(),
            origin=each.origin or f"files: {each.path}",
        )  # fmt: skip
    if node.files:
        rows = (
            "\t".join((each.path, each.owner, _join(each.restart), _join(each.reload)))
            for each in node.files
        )
        table = HEADING + "".join(f"{row}\n" for row in rows)
        yield File(path=SITE_FILES, mode=0o644, content=table.encode(), origin="files")


def _join(units: tuple[str, ...]) -> str:
    return " ".join(units) or NONE


def list_collisions(plan: ClusterPlan) -> Iterator[tuple[int, str]]:
    """Yield the number of each node, and each of its paths, that bundler has a file at."""
    own = list_paths()
    for index, node in enumerate(plan.nodes):
        for each in node.files:
            if ROOTFS + each.path in own:
                yield index, each.path
