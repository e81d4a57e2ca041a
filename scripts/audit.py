"""Compare the locked Python packages with the advisories of OSV (osv.dev), by pip-audit.

    audit.py [--osv-url URL] FILE...

Exit code 0: no locked version has a known vulnerability, or OSV cannot be reached. The last line
says which of the two. 1: a version is vulnerable. A query for a version that is known to be
vulnerable comes first: an answer without its advisory is no answer.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import requests

OSV = "https://api.osv.dev/v1/query"
KNOWN = {"package": {"name": "urllib3", "ecosystem": "PyPI"}, "version": "1.26.4"}
TIMEOUT = 3  # seconds for the first query: without a network `make check` does not wait longer
LIMIT = 120  # seconds for all queries


def main() -> int:
    """Run the audit, and say what was compared."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--osv-url", default=OSV)
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    if reason := explain_unreachable(options.osv_url):
        return report_nothing(reason)
    locked = [line for file in options.files for line in list_locked(file)]
    found = ask(options.osv_url, locked)
    if isinstance(found, str):
        return report_nothing(found)
    for line in found:
        print(f"audit: {line}")
    if found:
        print("audit: raise the floor in pyproject.toml, then: make requirements")
        return 1
    print(f"audit: {len(locked)} locked versions have no known vulnerability")
    return 0


def report_nothing(reason: str) -> int:
    """Say that the lock was not compared; `make check` works without a network."""
    print(f"audit: NOT COMPARED with known vulnerabilities: {reason}")
    return 0


def explain_unreachable(url: str) -> str:
    """Why there is no usable answer for a known vulnerability; empty if there is one."""
    try:
        answer = requests.post(url, json=KNOWN, timeout=TIMEOUT)
        answer.raise_for_status()
        return "" if answer.json().get("vulns") else f"{url} knows no advisory of an old urllib3"
    except (requests.RequestException, ValueError, AttributeError) as error:
        return f"{url} cannot be reached ({type(error).__name__})"


def list_locked(file: Path) -> list[str]:
    """The lines NAME==VERSION of a lock."""
    return re.findall(r"^[\w.-]+==[^\s\\]+", file.read_text(encoding="utf-8"), re.MULTILINE)


def ask(url: str, locked: list[str]) -> list[str] | str:
    """A line for each known vulnerability; a text says why pip-audit has no result."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", "/dev/stdin", "--no-deps",
        "--disable-pip", "--vulnerability-service", "osv", "--osv-url", url, "--format", "json",
        "--progress-spinner", "off", "--timeout", str(TIMEOUT),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, input="\n".join(locked), capture_output=True, text=True, check=False,
            timeout=LIMIT,
        )  # fmt: skip
        answers = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return f"pip-audit did not finish within {LIMIT} s"
    except (ValueError, KeyError):
        return "pip-audit failed: " + (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
    if left := {line.partition("==")[0] for line in locked} - {one["name"] for one in answers}:
        return f"pip-audit has no result for {', '.join(sorted(left))}"
    if skipped := [one["name"] for one in answers if "skip_reason" in one]:
        return f"pip-audit skipped {', '.join(skipped)}"
    return [
        f"{one['name']} {one['version']} is vulnerable: {vulnerability['id']}, fixed in"
        f" {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for one in answers
        for vulnerability in one["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main())
