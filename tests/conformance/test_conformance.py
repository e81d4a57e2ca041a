"""Kubernetes' own conformance tests, on the five hosts of the example, installed from their bundles.

BUNDLER_CONFORMANCE_FOCUS     run only the tests whose name this regular expression finds
BUNDLER_CONFORMANCE_COREDNS   VERSION=ARCHIVE: an image of CoreDNS for the bundles; no test is left out then
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.conformance import (
    COREDNS,
    FAILING,
    LEFT_OUT,
    SERIAL,
    Results,
    Runner,
    describe_cluster,
    install_cluster,
    list_tests,
    load_reasons,
    make_runner,
    write_junit,
    write_summary,
)
from support.lab import PROJECT, make_lab_directory, shared_lab

pytestmark = [pytest.mark.lab, pytest.mark.long]

REPORTS = PROJECT / ".lab" / "conformance"
PROCESSES = 4
"""More overload two processors: tests then fail for their own limits of time."""

WANTED = 0.95
"""Of the tests whose images can be made here."""


@dataclass(frozen=True)
class Suite:
    """Names of the tests, by what happens to them."""

    parallel: list[str]
    serial: list[str]
    left_out: dict[str, str]


@pytest.fixture(scope="module")
def suite() -> Suite:
    left_out = {} if COREDNS else load_reasons(LEFT_OUT)
    focus = re.compile(os.environ.get("BUNDLER_CONFORMANCE_FOCUS", ""))
    tests = [name for name in list_tests() if name not in left_out and focus.search(name)]
    return Suite(
        parallel=[name for name in tests if SERIAL not in name],
        serial=[name for name in tests if SERIAL in name],
        left_out=left_out,
    )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The five hosts with the images of the tests in their bundles, and the host that runs the tests."""
    directory = make_lab_directory(tmp_path_factory.mktemp("conformance"))
    with shared_lab(directory):
        cluster = install_cluster(directory, describe_cluster(directory))
        yield make_runner(cluster, REPORTS)


@pytest.fixture(scope="module")
def results(suite: Suite, runner: Runner) -> Results:
    """The parallel part, then the serial part. No test runs twice."""
    parallel = runner.run_tests(suite.parallel, label="1-parallel", processes=PROCESSES)
    serial = runner.run_tests(suite.serial, label="2-serial", processes=1)
    both = parallel | serial
    write_junit(sorted(REPORTS.glob("*/junit_*.xml")), REPORTS / "junit_01.xml")
    write_summary(REPORTS / "summary.txt", both, suite.left_out)
    return both


@pytest.mark.parametrize("table", [LEFT_OUT, FAILING], ids=["left out", "failing"])
def test_each_row_of_a_table_is_a_conformance_test(table: Path) -> None:
    assert load_reasons(table).keys() <= set(list_tests())


def test_no_test_is_lost(suite: Suite, results: Results) -> None:
    assert results.passed | results.failed.keys() == {*suite.parallel, *suite.serial}


def test_at_least_95_percent_pass(results: Results) -> None:
    ran = len(results.passed) + len(results.failed)
    assert len(results.passed) >= WANTED * ran, sorted(results.failed)


def test_each_failure_has_its_reason(results: Results) -> None:
    unexplained = results.failed.keys() - load_reasons(FAILING).keys()
    assert not unexplained, {name: results.failed[name] for name in sorted(unexplained)}
