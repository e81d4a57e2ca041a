"""The add-ons of cluster.yaml as files of the control planes, for kube-addons.service.

/etc/kubernetes/site-addons/addons.tsv           NAME NEEDS TIMEOUT PRUNE RECONCILE, in order
/etc/kubernetes/site-addons/verify.tsv           ADDON KIND NAMESPACE NAME CONDITION, for verify.sh
/etc/kubernetes/site-addons/NAME/1-PART.yaml     the parts in order; those with secrets are 0600
/etc/kubernetes/site-addons/NAME/objects.txt     the objects: what hosts wait for and delete
/etc/kubernetes/site-addons/NAME/hooks/001.yaml  the hooks in order; those with secrets are 0600
/etc/kubernetes/site-addons/NAME/hooks/hooks.tsv FILE EVENTS KIND NAMESPACE NAME MARKS, in order
"""

from collections.abc import Iterator

from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.planned_addons import ORDER, SECRET, PlannedAddon
from bundler.cluster.schema import Role
from bundler.files import SECRET_MODE
from bundler.render.tree import File

DIRECTORY = "rootfs/etc/kubernetes/site-addons"
TABLE = f"{DIRECTORY}/addons.tsv"
VERIFY_TABLE = f"{DIRECTORY}/verify.tsv"
OBJECT_LIST = "objects.txt"
HEADING = (
    "# The add-ons of cluster.yaml, in order: NAME NEEDS TIMEOUT PRUNE RECONCILE, separated by"
    " tabs. NEEDS are names with\n# commas, or -; TIMEOUT are seconds; PRUNE is objects or all;"
    " RECONCILE is yes or no.\n"
)
OBJECTS = (
    "# The objects of this add-on, in the order of deletion: KIND[.GROUP] NAMESPACE NAME MARKS. The"
    " namespace of an object\n# without one is -. MARKS: wait until it is ready; keep it when it"
    " leaves the add-on, without prune: all; let it stay\n# always; hook: it is run, not applied.\n"
)
EXPECTED = (
    "# The objects that verify.sh looks for: ADDON KIND[.GROUP] NAMESPACE NAME CONDITION, separated"
    " by tabs. CONDITION is\n# what must be True in the object's status, or -. Kinds without a"
    " namespace have one here that does not count.\n"
)
HOOKS = (
    "# The hooks of this add-on, in order: FILE EVENTS KIND[.GROUP] NAMESPACE NAME MARKS, separated"
    " by tabs. MARKS: delete\n# the earlier one before it is made; end: delete it when it has"
    " succeeded.\n"
)


def make_addon_files(plan: ClusterPlan, node: NodePlan) -> Iterator[File]:
    """Yield the files of all add-ons, and their table, for a control plane."""
    if not node.has(Role.CONTROL_PLANE):
        return
    rows = "".join(
        f"{each.name}\t{','.join(each.needs) or '-'}\t{each.timeout}\t{each.prune}\t"
        f"{'yes' if each.reconcile else 'no'}\n"
        for each in plan.addons
    )
    table = f"{HEADING}{rows}".encode()
    yield File(path=TABLE, mode=0o644, content=table, origin="addons")
    if expected := "".join(
        "\t".join((each.name, *row)) + "\n" for each in plan.addons for row in each.verify
    ):
        content = f"{EXPECTED}{expected}".encode()
        yield File(path=VERIFY_TABLE, mode=0o644, content=content, origin="addons")
    for each in plan.addons:
        yield from _make_files(each)


def _make_files(addon: PlannedAddon) -> Iterator[File]:
    origin = f"addons: {addon.name}"
    for number, part in enumerate(ORDER, start=1):
        if part in addon.parts:
            yield File(
                path=f"{DIRECTORY}/{addon.name}/{number}-{part}.yaml",
                mode=SECRET_MODE if part == SECRET else 0o644,
                content=addon.parts[part].encode(),
                origin=origin,
            )
    rows = OBJECTS + "".join(f"{row}\n" for row in addon.objects)
    yield File(
        path=f"{DIRECTORY}/{addon.name}/{OBJECT_LIST}", mode=0o644, content=rows.encode(),
        origin=origin,
    )  # fmt: skip
    if addon.hooks:
        yield from _make_hook_files(addon, origin)


def _make_hook_files(addon: PlannedAddon, origin: str) -> Iterator[File]:
    folder = f"{DIRECTORY}/{addon.name}/hooks"
    rows = HOOKS
    for number, hook in enumerate(addon.hooks, start=1):
        name = f"{number:03}.yaml"
        rows += "\t".join((name, ",".join(hook.events), *hook.words, hook.marks)) + "\n"
        mode = SECRET_MODE if hook.is_secret else 0o644
        content = hook.content.encode()
        yield File(path=f"{folder}/{name}", mode=mode, content=content, origin=origin)
    yield File(path=f"{folder}/hooks.tsv", mode=0o644, content=rows.encode(), origin=origin)
