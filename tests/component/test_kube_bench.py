"""A real kube-bench finds nothing on bundles with `profile` but what the table says."""

from pathlib import Path

import pytest
from support.cis_hosts import load_plan, stage_host
from support.kube_bench import find_kube_bench, run_on_folder

from bundler.cluster.cis import BENCHMARKS, choose_benchmark, list_checks
from bundler.cluster.components import MINORS
from bundler.cluster.plan import NodePlan
from bundler.cluster.schema import Role
from bundler.render.cis import make_kube_bench_arguments

UNMET = frozenset({"no"})
FOLDERS = "etcd-data-owner"
"""The folder that stands for a host belongs to the user of this test."""

TRIED = tuple(dict.fromkeys((*BENCHMARKS, MINORS[-1])))


def list_unmet(minor: str, node: NodePlan) -> set[str]:
    """The numbers of the automated checks of a host that the table says are not met."""
    benchmark = choose_benchmark(minor) or ""
    return {
        check.find_id(benchmark) or ""
        for check in list_checks(minor, "cis")
        if (check.met_by in UNMET or check.name == FOLDERS)
        and check.is_automated
        and node.has(Role(check.role))
        if check.target != "master" or node.has(Role.CONTROL_PLANE)
    }


@pytest.mark.long
@pytest.mark.parametrize("minor", TRIED)
def test_kube_bench_finds_what_the_table_says(minor: str, tmp_path: Path) -> None:
    program = find_kube_bench()
    plan = load_plan(tmp_path, minor)
    for node in plan.nodes:
        host = stage_host(plan, node, tmp_path / node.name)
        arguments = make_kube_bench_arguments(plan, node).split()
        result = run_on_folder(program, host, arguments, tmp_path / "bin")
        failed = result.having("FAIL")
        assert failed <= list_unmet(minor, node), [result.reasons[one] for one in failed]
        assert len(result.having("PASS")) >= 7
        missing = {"no"} & {
            check.met_by for check in list_checks(minor, "cis") if check.is_automated
        }
        assert not missing or node.name in {"e1", "w1"} or failed


@pytest.mark.long
def test_kube_bench_finds_faults_without_the_profile(tmp_path: Path) -> None:
    program = find_kube_bench()
    with_profile, plan = load_plan(tmp_path, "1.36"), load_plan(tmp_path, "1.36", "")
    (ours,) = (node for node in with_profile.nodes if node.name == "a1")
    (node,) = (node for node in plan.nodes if node.name == "a1")
    host = stage_host(plan, node, tmp_path / "without")
    config = "etc/kubernetes/kube-bench/config.yaml"
    (host.root / config).parent.mkdir()
    made = stage_host(with_profile, ours, tmp_path / "with").root / config
    (host.root / config).write_bytes(made.read_bytes())
    arguments = make_kube_bench_arguments(with_profile, ours).split()
    result = run_on_folder(program, host, arguments, tmp_path / "bin")
    failed = result.having("FAIL")
    assert len(result.having("PASS")) > 50
    assert failed >= {"1.1.1", "1.1.5", "1.1.13", "1.3.7", "1.4.1", "1.4.2", "4.1.1", "4.1.9"}
