"""JSON for other programs: every shape is as docs/reference/json.md has it."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import run_bundler
from support.paths import PROJECT
from support.small_builds import SmallSite, make_site

from bundler.cli.json_output import VERSIONS

PAGE = (PROJECT / "docs" / "reference" / "json.md").read_text()


def documented(shape: str) -> set[str]:
    """The fields of a shape on the page."""
    section = PAGE.partition(f"\n## {shape}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return {field for cell in cells for field in re.findall(r"`([^`]+)`", cell)}


def list_fields(value: object, path: str = "") -> Iterator[str]:
    """The fields of a value, as the page writes them; an object whose keys are data is one field."""
    if isinstance(value, dict) and path.rpartition(".")[2] != "left_out":
        for key, inner in value.items():
            yield from list_fields(inner, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from list_fields(item, f"{path}[]")
    else:
        yield path


def read(done: subprocess.CompletedProcess[str], shape: str) -> dict[str, object]:
    """The JSON of a command, after its fields are compared with the page."""
    data = json.loads(done.stdout)
    assert data["format"] == f"{shape}/{VERSIONS[shape]}"
    assert f"`{data['format']}`" in PAGE
    assert set(list_fields(data)) == documented(shape)
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
