"""`bundler explain`: prints the flags that bundler sets, with the reason for each."""

import dataclasses
import json
from typing import Annotated

import typer

from bundler.cluster.settings import explain


def explain_command(
    component: Annotated[str, typer.Argument(help="kube-apiserver, kubelet, etcd, …")],
    version: Annotated[
        str,
        typer.Option("--version", help="Kubernetes' version or minor (of etcd: etcd's own)."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print every flag that bundler sets, its value, why, from which to which minor, and when.

    A value in {{ }} follows from the plan. Flags marked * cannot be changed under `extra`. Flags
    that say `only with` are set where the cluster has chosen that.
    """
    rows = explain(component, version)
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        spans = [f"since {row.since}"] if row.since else []
        spans += [f"until {row.until}"] if row.until else []
        when = [", ".join(spans) or "in every minor"]
        when += [f"only with {row.feature.replace('+', ' and ')}"] if row.feature else []
        span = f" [{'; '.join(when)}]"
        fixed = " *" if row.fixed else ""
        print(f"--{row.flag}={row.value}{fixed}\n      {row.why}{span}")
