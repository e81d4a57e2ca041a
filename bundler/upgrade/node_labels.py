"""Compare the labels, annotations and taints that control planes set on Nodes.

Their bundles have them in node-labels.tsv; compare-node-labels.awk does the same on hosts.
"""

from collections.abc import Iterator
from urllib.parse import unquote_plus

from bundler.bundle.inspect import BundleReport
from bundler.cluster.node_labels import NODE_LABELS
from bundler.upgrade.change import BundleChange, ChangeKind

NODE_ROW = "node"
EMPTY = "-"

Mark = tuple[str, str, str]
"""Node, kind and key."""


def compare_node_labels(before: BundleReport, after: BundleReport) -> Iterator[BundleChange]:
    """Yield each label, annotation and taint that is planned differently in a control plane."""
    if NODE_LABELS not in after.texts and NODE_LABELS in before.texts:
        return  # a host that is no control plane any more, or a delta without the file
    ours, theirs = (_read(report) for report in (before, after))
    for mark in dict.fromkeys((*ours, *theirs)):
        old, new = ours.get(mark), theirs.get(mark)
        if old == new:
            continue
        node, kind, key = mark
        what = ChangeKind.CHANGED
        if old is None or new is None:
            what = ChangeKind.ADDED if old is None else ChangeKind.REMOVED
        yield BundleChange(
            section="node labels", what=what, name=f"{node}: {kind} {key}", before=old or "",
            after=new or "",
        )  # fmt: skip


def describe(change: BundleChange) -> str:
    """`w1: label rack=4 is set`; annotations without their value, which may be long."""
    if change.what is ChangeKind.REMOVED:
        return f"{change.name} is removed"
    is_shown = change.after and ": annotation " not in change.name
    return f"{change.name}{f' = {change.after}' if is_shown else ''} is set"


def _read(report: BundleReport) -> dict[Mark, str]:
    text = report.texts.get(NODE_LABELS, b"").decode(errors="replace")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {
        (row[0], row[1], row[2]): "" if row[3] == EMPTY else unquote_plus(row[3])
        for row in rows
        if len(row) > 3 and row[1] != NODE_ROW
    }
