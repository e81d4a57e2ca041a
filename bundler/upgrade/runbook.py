"""dist/RUNBOOK.md: what to carry where, what to run there in order, what to read back aloud."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from bundler.bundle.layout import Layout, Media
from bundler.bundle.output import RUNBOOK
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.formats.volumes import DIGESTS, Written, joined_name
from bundler.overlays.templating import compile_template
from bundler.paths import RESOURCES

SPOKEN = 4  # groups of four characters of a digest: enough to be read back aloud

IN_TURN = "a new cluster: in any order; one that runs: one by one, or `--wait` gives each its turn"
WAVES = (
    ("Members of etcd", IN_TURN),
    ("Control planes", IN_TURN),
    ("Workers", "after the control planes, as many at a time as the cluster can do without"),
)
"""In which order hosts are installed: a title, and how."""
DECIDING = {Role.CONTROL_PLANE: 1, Role.WORKER: 2, Role.ETCD: 0, Role.LOAD_BALANCER: 1}
"""The first of these that a node has says its wave. A worker comes after the control planes,
whatever else it is; with node-local load balancers each is one of them too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Hosts that are installed at one time."""

    title: str
    how: str
    nodes: tuple[NodePlan, ...]


def make_waves(plan: ClusterPlan) -> tuple[Wave, ...]:
    """Every node in the wave of its roles; waves without a node are left out."""
    nodes = sorted(plan.nodes, key=lambda node: is_late(node.roles))
    waves = (
        Wave(title=title, how=how, nodes=tuple(n for n in nodes if wave_of(n.roles) == index))
        for index, (title, how) in enumerate(WAVES)
    )
    return tuple(wave for wave in waves if wave.nodes)


def wave_of(roles: Collection[Role]) -> int:
    """The place in WAVES of a node with these roles."""
    return next(wave for role, wave in DECIDING.items() if role in roles)


def is_late(roles: Collection[Role]) -> bool:
    """Whether others of its wave go first: control planes that have no kubelet do."""
    return Role.WORKER in roles


def make_runbook(
    plan: ClusterPlan,
    written: Sequence[Written],
    media: Media,
    deltas: Collection[str],
    *,
    signed: bool,
) -> bytes:
    """The runbook of a build, as Markdown; the same build gives the same bytes.

    `deltas` names the nodes whose bundle is a change to an earlier one.
    """
    text = (RESOURCES / f"{RUNBOOK}.j2").read_text()
    files = {
        whole: sorted(files, key=lambda file: file.path.name)
        for whole, files in groupby(
            sorted(written, key=lambda file: file.path.name),
            lambda file: joined_name(file.path.name.removesuffix(DIGESTS)),
        )
    }
    return (
        compile_template(text)
        .render(
            plan=plan,
            waves=make_waves(plan),
            files=files,
            payload=next((name for name in files if name.startswith("payload-")), ""),
            is_split=media.layout is Layout.SPLIT,
            deltas=deltas,
            signed=signed,
            spoken=speak,
            first=plan.having(Role.CONTROL_PLANE)[0],
        )
        .encode()
    )


def speak(digest: str) -> str:
    """The first characters of a digest in groups that one person reads and another repeats."""
    return " ".join(digest[4 * at : 4 * at + 4] for at in range(SPOKEN))
