"""dist/RUNBOOK.md: which file goes to which host, the commands there, and digests to read aloud."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby

from bundler.bundle.layout import Layout, Media
from bundler.bundle.output import RUNBOOK
from bundler.cluster.cis import list_cannot_hold
from bundler.cluster.components import minor_of
from bundler.cluster.lifecycle import list_ended, list_lines_in_use
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role
from bundler.cluster.weakenings import list_accepted
from bundler.formats.volumes import DIGESTS, Written, joined_name
from bundler.overlays.templating import compile_template
from bundler.paths import RESOURCES
from bundler.render.bundle_manifest import Seal

SPOKEN = 4  # groups of four characters of a digest that people read aloud

ONE_BY_ONE = (
    "in a new cluster in any order; in a running cluster one by one, or all at once with `--wait`,"
    " which waits for the rollout slot"
)
GROUPS = (
    ("etcd members", ONE_BY_ONE),
    ("Control planes", ONE_BY_ONE),
    ("Workers", "after the control planes; several at a time, if the cluster has the capacity"),
)
"""The rollout order: the title of each group of hosts, and how to install it."""
GROUP_OF_ROLE = {
    Role.CONTROL_PLANE: 1,
    Role.WORKER: 2,
    Role.ETCD: 0,
    Role.LOAD_BALANCER: 1,
    Role.REGISTRY: 1,
}
"""The index in GROUPS of a node: that of its first role here. A worker comes after the control
planes, also with other roles: with node-local load balancers every worker has that role too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """Hosts of which all are installed before those of the next group."""

    title: str
    how: str
    nodes: tuple[NodePlan, ...]


def make_groups(plan: ClusterPlan, bundles: Collection[str]) -> tuple[RolloutGroup, ...]:
    """Assign every node that has a bundle to the group of its roles; leave out empty groups.

    `bundles` are the names of the tarballs.
    """
    nodes = sorted(
        (node for node in plan.nodes if f"{plan.name}-{node.name}.tar.gz" in bundles),
        key=lambda node: is_late(node.roles),
    )
    groups = (
        RolloutGroup(
            title=title, how=how, nodes=tuple(n for n in nodes if group_of(n.roles) == index)
        )
        for index, (title, how) in enumerate(GROUPS)
    )
    return tuple(group for group in groups if group.nodes)


def group_of(roles: Collection[Role]) -> int:
    """Return the index in GROUPS of a node with these roles."""
    return next(group for role, group in GROUP_OF_ROLE.items() if role in roles)


def is_late(roles: Collection[Role]) -> bool:
    """Whether others of the group go first: control planes without a kubelet do."""
    return Role.WORKER in roles


def make_runbook(
    plan: ClusterPlan,
    written: Sequence[Written],
    media: Media,
    deltas: Collection[str],
    seals: Mapping[str, Seal],
    *,
    state_id: str,
    signed: bool,
    join_before: datetime | None,
    as_of: date,
) -> bytes:
    """Render the runbook of a build as Markdown; the same build gives the same bytes.

    `deltas` names the nodes whose bundle is a delta to an earlier one, `seals` those whose bundle
    is sealed. `join_before` is the end of the first bootstrap token. Release lines that have ended
    by `as_of` are listed.
    """
    text = (RESOURCES / f"{RUNBOOK}.j2").read_text()
    files = {
        joined: sorted(files, key=lambda file: file.path.name)
        for joined, files in groupby(
            sorted(written, key=lambda file: file.path.name),
            lambda file: joined_name(file.path.name.removesuffix(DIGESTS)),
        )
    }
    return (
        compile_template(text)
        .render(
            plan=plan,
            groups=make_groups(plan, files),
            files=files,
            payload=next((name for name in files if name.startswith("payload-")), ""),
            is_split=media.layout is Layout.SPLIT,
            deltas=deltas,
            seals=seals,
            signed=signed,
            join_before=join_before,
            state_id=state_id,
            spoken=group_digits,
            accepted=tuple(list_accepted(plan.cluster)),
            as_of=as_of,
            ended=tuple(list_ended(plan.cluster, as_of)),
            lines=[one for one in list_lines_in_use(plan.cluster) if one.row.ends],
            first=plan.having(Role.CONTROL_PLANE)[0],
            cannot_hold=tuple(
                list_cannot_hold(minor_of(plan.cluster.kubernetes.version), plan.cluster.profile)
                if plan.cluster.profile
                else ()
            ),
        )
        .encode()
    )


def group_digits(digest: str) -> str:
    """Return the first characters of a digest in groups, for reading aloud."""
    return " ".join(digest[4 * at : 4 * at + 4] for at in range(SPOKEN))
