"""bundler init on a terminal, by options, and in scripts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command import run_bundler
from support.terminal import INTERRUPT, converse

from bundler.cluster.json_schema import format_schema

BUNDLER = str(Path(sys.executable).parent / "bundler")


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_bundler(arguments, cwd=directory, text=True)


def test_options_write_a_file_that_check_accepts_and_its_schema(tmp_path: Path) -> None:
    done = run(tmp_path, "init", "--control-plane", "192.0.2.10", "--worker", "big=192.0.2.20")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cluster.yaml\nbundler.schema.json\n"
    assert (tmp_path / "bundler.schema.json").read_text() == format_schema()
    assert run(tmp_path, "check").returncode == 0
    nodes = yaml.safe_load((tmp_path / "cluster.yaml").read_text())["nodes"]
    assert [node["name"] for node in nodes] == ["cp1", "big"]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path, "init", "--control-plane", "192.0.2.10")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = run(tmp_path, "init", "--control-plane", "192.0.2.11")
    assert done.returncode == 6
    assert "fix: choose another file with -o" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_schema_file_stays_and_the_command_is_named(tmp_path: Path) -> None:
    (tmp_path / "bundler.schema.json").write_text("{}")
    done = run(tmp_path, "init", "--example", "single")
    assert done.returncode == 0
    assert "bundler schema > bundler.schema.json" in done.stderr
    assert (tmp_path / "bundler.schema.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "there is no terminal to ask on"),
        (("--name", "x"), "no --control-plane is given"),
        (("--control-plane", "192.0.2.300"), "192.0.2.300"),
        (("--control-plane", "192.0.2.1", "--os", "plan9"), "plan9: bundler cannot carry"),
        (("--control-plane", "192.0.2.1", "--kubernetes", "1.30"), "must be a full version"),
        (("--control-plane", "192.0.2.1", "--endpoint", "api"), "must be HOST:PORT"),
        (("--example", "none"), "there is no such example"),
        (("--example", "single", "--name", "x"), "cannot be used together"),
        (("--control-plane", "192.0.2.1", "-o", "no/such/cluster.yaml"), "there is no directory"),
    ],
)
def test_wrong_options_write_nothing_and_say_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    done = run(tmp_path, "init", *arguments)
    assert done.returncode in {2, 6}
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_stdout_gets_the_text_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "init", "--control-plane", "192.0.2.10", "-o", "-")
    assert yaml.safe_load(done.stdout)["name"] == "cluster1"
    assert not list(tmp_path.iterdir())


def test_examples_are_listed_and_copied(tmp_path: Path) -> None:
    names = [
        line.split()[0] for line in run(tmp_path, "init", "--list-examples").stdout.splitlines()
    ]
    assert {"single", "production", "tutorial"} <= set(names)
    for name in names:
        assert run(tmp_path, "init", "--example", name, "-o", f"{name}.yaml").returncode == 0
        assert run(tmp_path, "check", "-q", "-c", f"{name}.yaml").returncode == 0


def test_the_schema_is_json_and_the_same_at_every_run(tmp_path: Path) -> None:
    texts = {run(tmp_path, "schema").stdout for _ in range(2)}
    assert len(texts) == 1
    assert json.loads(texts.pop())["additionalProperties"] is False


@pytest.mark.slow
def test_on_a_terminal_it_asks_and_explains_wrong_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = (
        "shop", "two", "3", "192.0.2.11", "192.0.2.11", "b=192.0.2.12", "192.0.2.13",
        "1", "192.0.2.21", "nginx-keepalived", "192.0.2.100", "192.0.2.100:8443", "debian-12", "",
    )  # fmt: skip
    session = converse([BUNDLER, "init"], [f"{answer}\r" for answer in answers])
    assert session.code == 0, session.screen
    for said in ("two: must be a number", "cp1 is 192.0.2.11 already", "must be HOST:PORT"):
        assert said in session.screen
    data = yaml.safe_load((tmp_path / "cluster.yaml").read_text())
    assert data["name"] == "shop"
    assert [node["name"] for node in data["nodes"]] == ["cp1", "b", "cp3", "w1"]
    assert data["control_plane"]["endpoint"] == "192.0.2.100:8443"
    assert data["packages"] == {"os": "debian-12"}
    assert run(tmp_path, "check", "-q").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("last", [INTERRUPT, "\x04"])
def test_an_interrupt_or_the_end_of_input_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.chdir(tmp_path)
    session = converse([BUNDLER, "init"], ["shop\r", last])
    assert session.code == 130, session.screen
    assert "Traceback" not in session.screen
    assert not list(tmp_path.iterdir())
