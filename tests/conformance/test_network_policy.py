"""Kubernetes' own tests of NetworkPolicies, on the five hosts with `network.policy.engine: kube-router`.

BUNDLER_KUBE_ROUTER         the program, version 1.6.1
BUNDLER_CONFORMANCE_FOCUS   run only the tests whose name this regular expression finds
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.charts import write_program
from support.conformance import (
    NO_SCTP,
    POLICIES_FAILING,
    SCTP,
    Results,
    Runner,
    describe_cluster,
    has_sctp,
    install_cluster,
    list_policy_tests,
    load_reasons,
    make_runner,
    write_junit,
    write_summary,
)
from support.lab import PROJECT, link_mirror, make_lab_directory, shared_lab
from support.paths import LAB_CACHE

PROGRAM = os.environ.get("BUNDLER_KUBE_ROUTER", "")
VERSION = "1.6.1"
pytestmark = [
    pytest.mark.lab,
    pytest.mark.long,
    pytest.mark.skipif(
        not PROGRAM,
        reason="kube-router cannot run on hosts: BUNDLER_KUBE_ROUTER does not name the program",
    ),
]
URL = f"github.com/cloudnativelabs/kube-router/releases/download/v{VERSION}/kube-router_{VERSION}_linux_amd64.tar.gz"
REPORTS = PROJECT / ".lab" / "conformance-network-policy"


@dataclass(frozen=True)
class Suite:
    """Names of the tests: those that run, and those that cannot with the reason."""

    run: list[str]
    left_out: dict[str, str]


@pytest.fixture(scope="module")
def suite() -> Suite:
    focus = re.compile(os.environ.get("BUNDLER_CONFORMANCE_FOCUS", ""))
    tests = list_policy_tests()
    left_out = {} if has_sctp() else {name: NO_SCTP for name in tests if SCTP in name}
    return Suite(
        run=[name for name in tests if name not in left_out and focus.search(name)],
        left_out=left_out,
    )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The five hosts with kube-router as a unit, and the host that runs the tests."""
    directory = make_lab_directory(tmp_path_factory.mktemp("network-policy"))
    document = describe_cluster(directory)
    document["network"]["policy"] = {"engine": "kube-router", "version": VERSION}
    mirror, pins = directory / "mirror", directory / "pins.yaml"
    link_mirror(mirror)
    pins.write_text(json.dumps(yaml.safe_load((LAB_CACHE / "pins.yaml").read_text())))
    program = Path(PROGRAM).read_bytes()
    write_program(mirror / URL, "kube-router", program, pins, "kube-router/amd64")
    with shared_lab(directory):
        cluster = install_cluster(
            directory, document, sources=("--mirror", str(mirror), "--pins", str(pins))
        )
        yield make_runner(cluster, REPORTS)


@pytest.fixture(scope="module")
def results(suite: Suite, runner: Runner) -> Results:
    """One test after another: policies take effect within a second, which other tests would delay."""
    found = runner.run_tests(suite.run, label="policies", processes=1)
    write_junit(sorted(REPORTS.glob("*/junit_*.xml")), REPORTS / "junit_01.xml")
    write_summary(REPORTS / "summary.txt", found, suite.left_out)
    return found


def test_each_row_of_the_table_is_a_test_of_policies() -> None:
    assert load_reasons(POLICIES_FAILING).keys() <= set(list_policy_tests())


def test_each_test_of_policies_has_a_result(suite: Suite, results: Results) -> None:
    assert suite.run
    assert results.passed | results.failed.keys() == set(suite.run)


def test_each_failed_policy_has_its_reason(results: Results) -> None:
    unexplained = results.failed.keys() - load_reasons(POLICIES_FAILING).keys()
    assert not unexplained, {name: results.failed[name] for name in sorted(unexplained)}
