"""What a bundle has of the benchmark: the checks of its host, and how to run kube-bench there."""

import re
from collections.abc import Iterator
from typing import Any

from bundler.cluster.cis import BENCHMARKS, CisCheck, choose_benchmark, list_checks
from bundler.cluster.components import minor_of
from bundler.cluster.plan import ClusterPlan, NodePlan
from bundler.cluster.schema import Role

TARGETS = {
    "master": Role.CONTROL_PLANE,
    "controlplane": Role.CONTROL_PLANE,
    "etcd": Role.ETCD,
    "node": Role.WORKER,
    "policies": Role.CONTROL_PLANE,
}
"""Target of kube-bench → the hosts that have its programs: elsewhere its checks fail."""

SECTIONS = {
    "master": "control plane",
    "controlplane": "control plane",
    "etcd": "etcd",
    "node": "worker",
    "policies": "policies",
}


FIXES = {
    "argument": "systemctl cat {subject}; remove what changes it, and run install.sh again",
    "setting": "systemctl cat {subject}; remove what changes it, and run install.sh again",
    "mode": "ls -l {subject}; run install.sh again",
    "owner": "ls -l {subject}; run install.sh again",
    "owner-tree": "ls -lR {subject}; run install.sh again",
    "provider": "{subject}; run install.sh again",
    "file-exists": "journalctl -u kubelet -n 50",
}
"""Kind of a check → where to look if it fails."""


def make_cis_values(plan: ClusterPlan, node: NodePlan) -> dict[str, Any]:
    """Make the values of the profile's templates; empty without a profile."""
    if not plan.cluster.profile:
        return {}
    return {
        "benchmarks": BENCHMARKS,
        "cis_rows": tuple(_list_rows(plan, node)),
        "kube_bench_arguments": make_kube_bench_arguments(plan, node),
    }


def make_kube_bench_arguments(plan: ClusterPlan, node: NodePlan) -> str:
    """Make the options with which kube-bench runs the checks of a host, and no others.

    `--skip` has those of the control plane that look at etcd where another host has it.
    """
    minor = minor_of(plan.cluster.kubernetes.version)
    benchmark = choose_benchmark(minor) or ""
    targets = [target for target, role in TARGETS.items() if node.has(role)]
    words = ["run", f"--benchmark cis-{benchmark}", f"--targets {','.join(targets)}"]
    skipped = [
        check.find_id(benchmark) or ""
        for check in list_checks(minor, "cis")
        if check.target == "master" and check.is_automated and not node.has(Role(check.role))
    ]
    if "master" in targets and skipped:
        words.append(f"--skip {','.join(skipped)}")
    return " ".join(words)


def _list_rows(plan: ClusterPlan, node: NodePlan) -> Iterator[str]:
    """Yield a line of cis.tsv for each check of the host: lib/verify/cis.sh has the columns."""
    cluster = plan.cluster
    minor, profile = minor_of(cluster.kubernetes.version), cluster.profile or "cis"
    places = {
        "etcd_data": cluster.etcd.data_dir,
        "kubelet_root": cluster.kubernetes.kubelet_root,
    }
    benchmark = choose_benchmark(minor) or ""
    checks = {
        check.find_id(benchmark) or check.stig.partition(" ")[0]: check
        for check in list_checks(minor, profile)
    }
    for name in sorted(checks, key=_rank):
        check = checks[name]
        if node.has(Role(check.role)):
            yield "\t".join(
                (
                    name,
                    check.stig if profile == "stig" else "",
                    "no" if check.met_by == "no" else check.type,
                    SECTIONS[check.target],
                    check.title,
                    check.kind,
                    check.subject.format(**places),
                    check.argument,
                    check.rule,
                    check.value,
                    _explain(check, places),
                )
            )


def _rank(name: str) -> tuple[bool, list[int]]:
    """Numbers of the benchmark in their order, then those of the STIG."""
    return name.startswith("V"), [int(part) for part in re.findall(r"[0-9]+", name)]


def _explain(check: CisCheck, places: dict[str, str]) -> str:
    """What to do on the host; the note of the table has more to say where it has one."""
    return check.note or FIXES[check.kind].format(subject=check.subject.format(**places))
