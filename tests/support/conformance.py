"""Kubernetes' own tests: which run, the programs that run them, and what their reports say."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.lab import Cluster, Host, boot_cluster, build, docker, hosts_sh, side_by_side
from support.paths import LAB_CACHE

TABLES = Path(__file__).parents[1] / "conformance"
LEFT_OUT = TABLES / "left_out.tsv"
FAILING = TABLES / "failing.tsv"
POLICIES_FAILING = TABLES / "policies_failing.tsv"
PROGRAMS = LAB_CACHE / "build" / "conformance-1.20.2"
KUBECTL = LAB_CACHE / "build" / "kubernetes-1.20.2" / "kubectl"
MADE = LAB_CACHE / "conformance"
"""Where scripts/lab/conformance.sh leaves the images."""

SUITE = "[Conformance]"
SERIAL = "[Serial]"
POLICY = "[Feature:NetworkPolicy]"
COREDNS = os.environ.get("BUNDLER_CONFORMANCE_COREDNS", "")
SCTP = "[Feature:SCTPConnectivity]"
NO_SCTP = "needs SCTP, which the kernel of this machine does not have"
RUNNER = Host("runner", "172.30.20.60")


@dataclass(frozen=True)
class Results:
    """Names of tests, and for failed ones the first line of what they said."""

    passed: frozenset[str]
    failed: dict[str, str]

    def __or__(self, other: "Results") -> "Results":
        """The results of two runs: what failed in either has failed."""
        failed = self.failed | other.failed
        return Results(passed=(self.passed | other.passed) - failed.keys(), failed=failed)


def list_tests() -> list[str]:
    """The names of all conformance tests, from e2e.test itself."""
    done = subprocess.run(
        [PROGRAMS / "e2e.test", "--list-conformance-tests"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [test["codename"] for test in yaml.safe_load(done.stdout)]


def list_policy_tests() -> list[str]:
    """The names of all tests of NetworkPolicies, from a run of e2e.test that starts none of them."""
    with tempfile.TemporaryDirectory() as reports:
        subprocess.run(
            [
                PROGRAMS / "e2e.test", "--ginkgo.dryRun", f"--ginkgo.focus={re.escape(POLICY)}",
                f"--report-dir={reports}", "--provider=skeleton",
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        cases = [case for report in Path(reports).glob("*.xml") for case in iterate_cases(report)]
    return sorted(str(case.get("name")) for case in cases)


def has_sctp() -> bool:
    try:
        socket.socket(type=socket.SOCK_STREAM, proto=socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def load_reasons(path: Path) -> dict[str, str]:
    """Map each test of a table to its reason."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    rows = [line.split("\t") for line in lines]
    assert all(len(row) == 2 and all(row) for row in rows), "each line: reason, tab, test"
    reasons = {test: reason for reason, test in rows}
    assert len(reasons) == len(rows), "a test has two lines"
    return reasons


def list_images() -> list[dict[str, str]]:
    """The images for the section of cluster.yaml; archives are below .lab/conformance."""
    rows = [line.split("\t") for line in (MADE / "images.tsv").read_text().splitlines()]
    return [{"ref": ref, "file": f"../.lab/conformance/{archive}"} for ref, archive in rows]


def describe_cluster(directory: Path) -> dict[str, Any]:
    """The lab's cluster.yaml with the images of the tests; CoreDNS too, if there is an image of it."""
    (directory / ".lab" / "conformance").symlink_to(MADE)
    document: dict[str, Any] = yaml.safe_load((directory / "examples" / "lab.yaml").read_text())
    # of pause there can be one: that of the tests, under the name that Kubernetes 1.20 has for it
    others = [image for image in document["images"] if "/pause:" not in image["ref"]]
    document["images"] = others + list_images()
    if COREDNS:
        version, _, archive = COREDNS.partition("=")
        # the hosts' own resolver is on their loopback address, which is the pod's own in a pod
        document["dns"] = {"provider": "coredns", "version": version, "upstream": []}
        document["images"].append({"ref": f"registry.k8s.io/coredns:{version}", "file": archive})
    return document


def install_cluster(directory: Path, document: dict[str, Any], **sources: Any) -> Cluster:
    """The five hosts, installed from bundles of this cluster.yaml, and verified."""
    description = directory / "examples" / "lab.yaml"
    description.write_text(yaml.safe_dump(document, sort_keys=False))
    build(description, directory / "dist", cache=LAB_CACHE / "product-cache", **sources)
    made = boot_cluster(directory)
    side_by_side(lambda host: host.unpack(made.bundle(host)), made.hosts.values())
    made.install_first()
    return made


def make_runner(cluster: Cluster, reports: Path) -> "Runner":
    """One more host, which has no bundle; a new directory for the reports."""
    hosts_sh("boot", f"{RUNNER.name}={RUNNER.address}")
    kubeconfig = cluster.directory / "runner.kubeconfig"
    subprocess.run(
        [
            Path(sys.executable).parent / "bundler", "admin", "create", "--name", "conformance", "--break-glass",
            "--days", "1", "-o", kubeconfig, "-c", cluster.directory / "examples" / "lab.yaml",
        ],
        check=True,
    )  # fmt: skip
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    made = Runner(RUNNER, reports)
    made.prepare(kubeconfig)
    return made


def make_pattern(names: Iterable[str]) -> str:
    """A regular expression of Go that finds exactly these names.

    Ginkgo puts `Kubernetes e2e suite ` or nothing before a name, and nothing after it.
    """
    return "(" + "|".join(re.sub(r"([][\\.*+?(){}|^$])", r"\\\1", name) for name in names) + ")$"


@dataclass(frozen=True)
class Runner:
    """A host of the lab without a bundle that has the tests, kubectl and a kubeconfig."""

    host: Host
    reports: Path  # of all runs, on this machine

    def prepare(self, kubeconfig: Path) -> None:
        self.host.run("mkdir -p /root/run")
        for file in (PROGRAMS / "e2e.test", PROGRAMS / "ginkgo", KUBECTL, kubeconfig):
            docker("cp", str(file), f"{self.host.container}:/root/run/{file.name}")

    def run_tests(self, names: list[str], *, label: str, processes: int) -> Results:
        """Run these tests; their output is appended to e2e.log, their reports are kept."""
        if not names:
            return Results(frozenset(), {})
        self.host.run("rm -rf /root/run/reports && mkdir /root/run/reports")
        # a file, since the pattern is longer than an argument may be
        pattern = self.reports / f"{label}.pattern"
        pattern.write_text(make_pattern(names))
        docker("cp", str(pattern), f"{self.host.container}:/root/run/pattern")
        command = (
            "cd /root/run && export PATH=/root/run:$PATH HOME=/root"
            f' && exec ./ginkgo -nodes={processes} -noColor -focus="$(cat pattern)" ./e2e.test --'
            " --kubeconfig=/root/run/runner.kubeconfig --provider=skeleton"
            " --kubectl-path=/root/run/kubectl --report-dir=/root/run/reports --num-nodes=2"
            " --ginkgo.slowSpecThreshold=300"
        )
        with (self.reports / "e2e.log").open("ab") as log:
            subprocess.run(
                ["docker", "exec", self.host.container, "sh", "-c", command],
                stdout=log, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        kept = self.reports / label
        docker("cp", f"{self.host.container}:/root/run/reports", str(kept))
        return load_results(kept.glob("junit_*.xml"))


def load_results(reports: Iterable[Path]) -> Results:
    """What ran, from JUnit reports of one or several processes."""
    cases = [case for report in reports for case in iterate_cases(report)]
    failed = {
        str(case.get("name")): first_line(failure)
        for case in cases
        if (failure := find_failure(case)) is not None
    }
    passed = {str(case.get("name")) for case in cases} - failed.keys()
    return Results(passed=frozenset(passed), failed=failed)


def iterate_cases(report: Path) -> Iterator[ET.Element]:
    """The cases of a report that ran and are conformance tests or tests of NetworkPolicies."""
    for case in ET.parse(report).getroot().iter("testcase"):
        name = case.get("name") or ""
        if case.find("skipped") is None and any(suite in name for suite in (SUITE, POLICY)):
            yield case


def find_failure(case: ET.Element) -> ET.Element | None:
    failure = case.find("failure")
    return case.find("error") if failure is None else failure


def first_line(failure: ET.Element) -> str:
    text = (failure.text or failure.get("message") or "").strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # the first line names the place in the sources, the following ones say what was wrong
    return " ".join(lines[:3])[:300]


def write_junit(reports: list[Path], target: Path) -> None:
    """One report of several runs, as cncf/k8s-conformance asks for: what failed in any has failed."""
    cases: dict[str, ET.Element] = {}
    for case in (case for report in reports for case in iterate_cases(report)):
        name = str(case.get("name"))
        if name not in cases or find_failure(cases[name]) is None:
            cases[name] = case
    suite = ET.Element(
        "testsuite",
        name="Kubernetes e2e suite",
        tests=str(len(cases)),
        failures=str(sum(find_failure(case) is not None for case in cases.values())),
        time=str(sum(float(case.get("time") or 0) for case in cases.values())),
    )
    suite.extend(case for _, case in sorted(cases.items()))
    ET.ElementTree(suite).write(target, encoding="utf-8", xml_declaration=True)


def write_summary(target: Path, results: Results, left_out: dict[str, str]) -> None:
    """What passed, failed and was left out, with the reasons."""
    lines = [
        f"passed {len(results.passed)}",
        f"failed {len(results.failed)}",
        *(f"  {name}\n    {why}" for name, why in sorted(results.failed.items())),
        f"left out {len(left_out)}",
        *(f"  {name}\n    {why}" for name, why in sorted(left_out.items())),
    ]
    target.write_text("\n".join(lines) + "\n")
