"""What `make test-conformance` runs and reports, without a cluster."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.conformance import (
    FAILING,
    LEFT_OUT,
    NO_SCTP,
    POLICIES_FAILING,
    Results,
    load_reasons,
    load_results,
    make_pattern,
    write_junit,
)

PROJECT = Path(__file__).parents[2]
REPORT = """\
<testsuite>
  <testcase name="[sig-a] one [Conformance]" time="1.5"></testcase>
  <testcase name="[sig-a] two [Conformance]" time="2"><failure>two.go:7
    not ready
    after 5m</failure></testcase>
  <testcase name="[sig-a] three [Conformance]"><skipped></skipped></testcase>
  <testcase name="[sig-a] four [Feature:NetworkPolicy]" time="1"></testcase>
  <testcase name="[sig-a] not of the suites" time="1"></testcase>
</testsuite>
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    file = tmp_path / "junit_01.xml"
    file.write_text(REPORT)
    return file


@pytest.mark.parametrize("table", [LEFT_OUT, FAILING, POLICIES_FAILING])
def test_each_reason_is_in_the_documentation_in_the_same_words(table: Path) -> None:
    text = (PROJECT / "docs/development/testing.md").read_text()
    assert NO_SCTP in text
    assert [reason for reason in set(load_reasons(table).values()) if reason not in text] == []


def test_no_test_is_both_left_out_and_failing() -> None:
    assert load_reasons(LEFT_OUT).keys().isdisjoint(load_reasons(FAILING))


def test_a_report_tells_what_ran_and_why_it_failed(report: Path) -> None:
    results = load_results([report])
    assert results.passed == {"[sig-a] one [Conformance]", "[sig-a] four [Feature:NetworkPolicy]"}
    assert results.failed == {"[sig-a] two [Conformance]": "two.go:7 not ready after 5m"}


def test_what_failed_in_one_of_two_runs_has_failed() -> None:
    first = Results(frozenset({"one"}), {"two": "slow"})
    both = first | Results(frozenset({"two", "three"}), {"four": "broken"})
    assert both == Results(frozenset({"one", "three"}), {"two": "slow", "four": "broken"})


def test_reports_of_several_runs_become_one(report: Path, tmp_path: Path) -> None:
    later = tmp_path / "junit_02.xml"
    names = ("[sig-a] two [Conformance]", "[sig-a] five [Conformance]")
    cases = "".join(f'<testcase name="{name}" time="3"/>' for name in names)
    later.write_text(f"<testsuite>{cases}</testsuite>")
    write_junit([report, later], tmp_path / "both.xml")
    results = load_results([tmp_path / "both.xml"])
    assert results.passed == {
        "[sig-a] one [Conformance]",
        "[sig-a] four [Feature:NetworkPolicy]",
        "[sig-a] five [Conformance]",
    }
    assert results.failed.keys() == {"[sig-a] two [Conformance]"}
    assert 'tests="4" failures="1"' in (tmp_path / "both.xml").read_text()


def test_a_pattern_finds_exactly_its_names() -> None:
    names = ["[sig-a] a (b) {c} $d [Conformance]", "[sig-a] a.b*c+d? | ^e\\f [Conformance]"]
    grep = shutil.which("grep")
    assert grep
    lines = [*names, "[sig-a] a (b) {c} $d [Conformance] more", "[sig-a] aXb [Conformance]"]
    done = subprocess.run(
        [grep, "-E", make_pattern(names)], input="\n".join(lines), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == names
