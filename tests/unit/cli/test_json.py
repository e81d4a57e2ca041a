"""JSON for other programs: every shape is as docs/reference/json.md has it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.command import run_bundler
from support.json_shapes import PAGE, list_documented, list_fields, read_shape
from support.small_builds import SmallSite, make_site

from bundler.cli.json_output import VERSIONS


def read(done: subprocess.CompletedProcess[str], shape: str) -> dict[str, Any]:
    """The JSON of a command that fills every list of its shape."""
    data: dict[str, Any] = read_shape(done.stdout, shape)
    assert set(list_fields(data)) == list_documented(shape)
    return data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    return make_site(tmp_path_factory.mktemp("json"))


@pytest.fixture(scope="module")
def dist(site: SmallSite) -> subprocess.CompletedProcess[str]:
    return run(site, "build", "-o", str(site.directory / "dist"), *site.arguments)


def run(site: SmallSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_bundler([*arguments, "--json"], cwd=site.directory, text=True)


def test_the_page_has_every_shape() -> None:
    titles = set(re.findall(r"^## ([a-z-]+)$", PAGE, re.MULTILINE))
    assert titles >= set(VERSIONS)


def test_check_reports_a_good_file_with_its_warnings(tmp_path: Path) -> None:
    run_bundler(["init", "--example", "tutorial"], cwd=tmp_path, check=True)
    done = run_bundler(["check", "--json"], cwd=tmp_path, text=True)
    data = read(done, "check")
    assert (done.returncode, data["ok"], data["cluster"], done.stderr) == (0, True, "tutorial", "")
    assert {problem["level"] for problem in data["problems"]} == {"warning"}
    assert all(problem["line"] and problem["key"] for problem in data["problems"])


def test_check_reports_a_refused_file_with_every_place(site: SmallSite, tmp_path: Path) -> None:
    text = (site.directory / "cluster.yaml").read_text()
    path = tmp_path / "cluster.yaml"
    path.write_text(text.replace("address:", "adress:", 1).replace("worker]}", "slave]}", 1))
    done = run(site, "check", "-c", str(path))
    data = read(done, "check")
    assert (done.returncode, data["ok"], data["nodes"]) == (2, False, None)
    first = data["problems"][0]
    assert (first["line"], first["column"], first["key"]) == (7, 17, "nodes[0].adress")
    assert first["file"] == str(path)
    assert "did you mean 'address'" in first["text"]


def test_check_reports_a_missing_file(site: SmallSite) -> None:
    done = run(site, "check", "-c", "none.yaml")
    data = json.loads(done.stdout)
    assert (done.returncode, data["ok"]) == (2, False)
    assert "No such file" in data["problems"][0]["text"]
    assert "bundler init" in data["fix"]


def test_versions_lists_each_pinned_version(site: SmallSite) -> None:
    data = read(run(site, "versions", "etcd"), "versions")
    assert {row["component"] for row in data["versions"]} == {"etcd"}
    assert ["amd64", "arm64"] in [row["architectures"] for row in data["versions"]]


def test_examples_are_listed(site: SmallSite) -> None:
    data = read(run(site, "init", "--list-examples"), "examples")
    assert "production" in [row["name"] for row in data["examples"]]


@pytest.mark.slow
def test_a_build_names_what_it_wrote_and_verify_checks_it(
    site: SmallSite, dist: subprocess.CompletedProcess[str]
) -> None:
    built = read(dist, "build")
    assert all(Path(file["path"]).stat().st_size == file["size"] for file in built["files"])
    verified = read(run(site, "verify", str(site.directory / "dist")), "verify")
    assert verified["ok"] is True
    assert len(verified["checks"]) == len(built["files"])


@pytest.mark.slow
def test_verify_reports_what_is_wrong(
    site: SmallSite, dist: subprocess.CompletedProcess[str]
) -> None:
    runbook = site.directory / "dist" / "RUNBOOK.md"
    before = runbook.read_bytes()
    runbook.write_bytes(before + b"x")
    done = run(site, "verify", str(site.directory / "dist"))
    runbook.write_bytes(before)
    data = read(done, "verify")
    assert (done.returncode, data["ok"]) == (6, False)
    assert [check["name"] for check in data["checks"] if not check["ok"]] == ["RUNBOOK.md"]


@pytest.mark.slow
def test_fetch_lock_and_cache_list_name_the_same_files(
    site: SmallSite, dist: subprocess.CompletedProcess[str]
) -> None:
    fetched = read(run(site, "fetch", *site.arguments), "fetch")
    assert all(Path(file["path"]).stat().st_size == file["size"] for file in fetched["files"])
    dry = read(run(site, "lock", "--dry-run", *site.arguments), "lock")
    assert dry["written"] is False
    assert not Path(dry["path"]).exists()
    locked = read(run(site, "lock", *site.arguments), "lock")
    assert {row["change"] for row in locked["entries"]} == {"added"}
    cache = ["--cache", str(site.directory / "cache"), "-c", str(site.directory / "cluster.yaml")]
    listed = read(run(site, "cache", "list", *cache), "cache-list")
    names = {file["digest"]: file["name"] for file in listed["files"]}
    for file in fetched["files"]:
        assert (names[file["digest"]] or "").startswith(file["name"])
    (site.directory / "cluster.lock.yaml").unlink()


@pytest.mark.parametrize("name", ["check", "lock", "fetch", "build", "verify", "versions"])
def test_a_command_that_fails_prints_no_json_but_its_reason(site: SmallSite, name: str) -> None:
    wrong = {"verify": ["none"], "versions": ["none"]}.get(name, ["--pins", "none.yaml"])
    done = run(site, name, *wrong)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert name == "check" or (done.stdout == "" and done.stderr.startswith("error: "))
