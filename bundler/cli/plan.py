"""`bundler plan`: how to upgrade a cluster from one build to another, host by host."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bundler import log
from bundler.cli.json_output import print_json
from bundler.cli.options import Json
from bundler.upgrade.rollout import HostStep, UpgradePlan, make_upgrade_plan


def plan_command(
    before: Annotated[
        Path, typer.Argument(metavar="OLD", help="The directory of the installed bundles.")
    ],
    after: Annotated[
        Path, typer.Argument(metavar="NEW", help="The directory of the bundles to install.")
    ],
    files: Annotated[bool, typer.Option("--files", help="Also list each changed file.")] = False,
    new_state: Annotated[
        bool,
        typer.Option(
            "--new-state", help="Plan it although NEW was made with another state: a new cluster."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an upgrade from OLD to NEW changes on each host, in rollout order.

    Shows the order of the hosts, the restarts with their interruptions, and the nodes to drain. An
    upgrade that skips a Kubernetes minor is refused, with the minors to go through. So are bundles
    that were made with different states.

    `install.sh --plan` shows the same on one host, compared with its real files. `bundler diff
    --text` shows the changed lines.

    Exit codes: 0 success, with or without changes; 2 refused; 6 a bundle is not readable.
    """
    rollout = make_upgrade_plan(before, after, new_state=new_state)
    if as_json:
        print_json("plan", **dataclasses.asdict(rollout))
    else:
        log.result("\n".join(_format_plan(rollout, files=files)))


def _format_plan(rollout: UpgradePlan, *, files: bool) -> Iterator[str]:
    hosts = [host for stage in rollout.stages for host in stage.hosts]
    if not rollout.leaving and all(host.kind == "nothing" for host in hosts):
        yield f"cluster {rollout.cluster}: nothing changes on all {len(hosts)} hosts"
        return
    yield f"cluster {rollout.cluster}"
    if rollout.leaving:
        yield "\nHosts that leave the cluster: run this on each, before anything else"
        for host in rollout.leaving:
            yield f"  {host.name} ({host.address}): /opt/k8s/bundle/uninstall.sh --leave"
    if rollout.node_labels:
        yield "\nNodes: the first control plane that is installed changes these"
        yield from (f"  {line}" for line in rollout.node_labels)
    if rollout.addons:
        yield "\nAdd-ons: the first control plane that is installed begins with these"
        yield from (f"  {line}" for line in rollout.addons)
    number = 0
    for stage in rollout.stages:
        yield f"\n{stage.title}: {stage.how}"
        for host in stage.hosts:
            number += 1
            yield f"  {number}. {host.name} ({host.address}): {_summarize(host)}"
            yield from (f"       {line}" for line in _list_changes(host, files=files))


def _summarize(host: HostStep) -> str:
    if host.kind != "change":
        return "new" if host.kind == "install" else "nothing changes"
    counts = {"new": host.added, "changed": host.changed, "removed": host.removed}
    files = ", ".join(f"{len(paths)} {word}" for word, paths in counts.items() if paths)
    return "; ".join((*host.versions, f"files: {files}"))


def _list_changes(host: HostStep, *, files: bool) -> Iterator[str]:
    if host.one_way:
        yield f"one way  {host.one_way}"
    if host.not_compared:
        yield f"note     {host.not_compared}"
    yield from (f"by hand  {line}" for line in host.by_hand)
    if host.is_drained:
        yield "drain    the pods of this node move to other nodes first"
    yield from (f"stop     {unit}" for unit in host.stopped)
    yield from (f"start    {unit}" for unit in host.started)
    width = max((len(restart.unit) for restart in host.restarts), default=0)
    for restart in host.restarts:
        yield f"restart  {restart.unit:{width}}  {restart.interruption}"
    if files:
        groups = {"new": host.added, "changed": host.changed, "remove": host.removed}
        yield from (f"{word:8} {path}" for word, paths in groups.items() for path in paths)
