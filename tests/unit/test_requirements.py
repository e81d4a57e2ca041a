"""Python packages of the builder: no version with a known vulnerability, and each file by its hash."""

import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-build.txt")
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
DIRECT = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PYPROJECT["project"]["optional-dependencies"]["dev"]]

VULNERABLE = [
    # package, last vulnerable version, advisory
    ("cryptography", "49.0.0", "CVE-2026-69247"),
    ("jinja2", "3.1.5", "CVE-2025-27516"),
    ("pydantic", "2.3.0", "CVE-2024-3772"),
    ("pyyaml", "5.3.1", "CVE-2020-14343"),
    ("requests", "2.32.5", "CVE-2026-25645"),
    ("sigstore", "3.5.6", "PYSEC-2026-1923"),
    ("urllib3", "2.7.0", "CVE-2026-97687, CVE-2026-97688, CVE-2026-97689"),
    ("pytest", "9.0.2", "CVE-2025-71176"),
]


def read_lock(name: str) -> dict[str, tuple[str, int]]:
    """Package → its version and how many files have a hash."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (PROJECT / name).read_text()):
        match = re.match(r"([\w.-]+)==([^\s\\]+)", entry)
        assert match, entry
        found[canonicalize_name(match[1])] = (match[2], entry.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize(("name", "version", "advisory"), VULNERABLE)
def test_no_floor_allows_a_version_with_a_known_vulnerability(
    name: str, version: str, advisory: str
) -> None:
    (wanted,) = [one for one in DIRECT + DEVELOPMENT if one.name == name]
    assert not wanted.specifier.contains(version), advisory
    locked = read_lock("requirements.txt").get(name)
    assert not locked or locked[0] != version


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes_and_no_place(name: str) -> None:
    locked = read_lock(name)
    assert len(locked) >= 5
    assert [package for package, (_, hashes) in locked.items() if not hashes] == []
    assert not re.search(r"://|--index|--find|--extra| @ ", (PROJECT / name).read_text())


def test_the_lock_has_what_pyproject_allows() -> None:
    locked = read_lock("requirements.txt")
    for wanted in DIRECT:
        version, _ = locked[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted}: make requirements"
    build = read_lock("requirements-build.txt")
    for wanted in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert wanted.specifier.contains(build[wanted.name][0]), f"{wanted}: make requirements"


def test_the_lock_has_every_package_that_these_need() -> None:
    locked = read_lock("requirements.txt")
    for package in locked:
        for wanted in map(Requirement, requires(package) or ()):
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                name = canonicalize_name(wanted.name)
                assert name in locked, f"{package} needs {wanted}: make requirements"
                assert wanted.specifier.contains(locked[name][0]), f"{package} needs {wanted}"


# --- the audit, against a server that answers as OSV does

Answer = Callable[[str, str], dict[str, Any] | None]
ADVISORY = {
    "vulns": [{
        "id": "PYSEC-1", "modified": "2026-11-01T00:00:00Z", "summary": "x", "details": "x",
        "affected": [{
            "package": {"name": "urllib3", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }],
    }],
}  # fmt: skip


@contextmanager
def osv(answer: Answer) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = answer(query["package"]["name"], query["version"])
            content = json.dumps(found or {}).encode()
            self.send_response(200 if found is not None else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audit(url: str, *files: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "scripts/audit.py", "--osv-url", url, *(files or LOCKS)],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


def knows_old_urllib3(name: str, version: str) -> dict[str, Any]:
    return ADVISORY if (name, version) == ("urllib3", "1.26.4") else {}


@pytest.mark.slow
def test_an_audit_without_findings_says_how_much_it_compared() -> None:
    asked = []

    def answer(name: str, version: str) -> dict[str, Any]:
        asked.append(name)
        return knows_old_urllib3(name, version)

    with osv(answer) as url:
        code, said = audit(url)
    locked = [name for lock in LOCKS for name in read_lock(lock)]
    assert (code, said) == (
        0,
        f"audit: {len(locked)} locked versions have no known vulnerability\n",
    )
    assert {*map(canonicalize_name, asked)} == {*locked}


@pytest.mark.slow
def test_an_audit_fails_for_a_vulnerable_version() -> None:
    version, _ = read_lock("requirements.txt")["urllib3"]
    with osv(lambda name, _: ADVISORY if name == "urllib3" else {}) as url:
        code, said = audit(url)
    assert code == 1
    assert f"urllib3 {version} is vulnerable: PYSEC-1, fixed in 99.1" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda name, version: {}, "knows no advisory"),
        (lambda name, version: None, "cannot be reached (HTTPError)"),
        (
            lambda name, version: knows_old_urllib3(name, version) or (None if name == "rich" else {}),
            "pip-audit",
        ),
    ],
    ids=["nothing known", "fails", "fails later"],
)  # fmt: skip
def test_an_audit_that_got_no_answer_says_that_nothing_was_compared(
    answer: Answer, reason: str
) -> None:
    """A mirror that answers with nothing must not look like a list without advisories."""
    with osv(answer) as url:
        code, said = audit(url)
    assert code == 0
    assert said.startswith("audit: NOT COMPARED with known vulnerabilities: ")
    assert reason in said


def test_an_audit_without_a_network_says_so_at_once() -> None:
    code, said = audit("http://127.0.0.1:1/v1/query")
    assert code == 0
    assert "NOT COMPARED" in said
    assert "cannot be reached (ConnectionError)" in said
