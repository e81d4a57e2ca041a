"""Completion in real shells, with the script that `bundler --show-completion` gives them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cases import first_cases
from support.command import run_bundler

BIN = Path(sys.executable).parent
ASK = {
    # what the shell calls after Tab, with the words of the line
    "bash": 'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bundler_completion bundler;'
    ' printf "%s\\n" "${COMPREPLY[@]}"',
    # zsh's own _arguments needs its line editor: this one prints what it is to offer
    "zsh": 'compdef() { :; }; _arguments() { print -r -- "$1"; }; _files() { :; };'
    ' source ./script; words=("$@"); CURRENT=$#; _bundler_completion',
    "fish": "source ./script; complete -C (string join ' ' -- $argv)",
}
LINES = {
    "bundler chec": {"check"},
    "bundler tokens renew l": {"leopard", "lynx"},
    "bundler tokens renew lynx l": {"leopard"},
    "bundler seal renew m": {"master7"},
    "bundler certs renew pki/nodes/lynx": {"pki/nodes/lynx/kube-proxy"},
    "bundler versions cri-d": {"cri-dockerd"},
    "bundler addon bundle li": {"lion"},
    "bundler build --layo": {"--layout"},
    "bundler build --layout s": {"split"},
    "bundler init --example prod": {"production"},
    "bundler explain nodes.na": {"nodes.name"},
}
"""A line, and what Tab offers for its last word."""
WRONG = {
    "no-yaml": "nodes: [",
    "no-list": "nodes: {a: b}\n",
    "hostile": "name: x\nnodes:\n  - {name: '$(touch pwned)'}\n  - {name: 'a`touch pwned`'}\n"
    "  - {name: \"'; touch pwned; '\"}\n  - {name: '*'}\n",
}


@pytest.fixture(scope="module", params=sorted(ASK))
def shell(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        pytest.skip("completion cannot be tried in a shell: it is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def site(shell: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a cluster.yaml, and of the shell's completion script."""
    directory = tmp_path_factory.mktemp(shell)
    run_bundler(
        ["init", "--control-plane", "master7=192.0.2.10", "--worker", "leopard=192.0.2.20",
         "--worker", "lynx=192.0.2.21"],
        cwd=directory, check=True,
    )  # fmt: skip
    with (directory / "cluster.yaml").open("a") as file:
        file.write("addons: [{name: lion, manifests: not-read.yaml}]\n")
    script = subprocess.run(
        [BIN / "bundler"], env={"_BUNDLER_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin"},
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    (directory / "script").write_bytes(script)
    return directory


def press_tab(shell: str, site: Path, line: str) -> subprocess.CompletedProcess[str]:
    words = line.split(" ")
    options = {"bash": ["--norc", "-c", ASK[shell], "bash"], "zsh": ["-f", "-c", ASK[shell], "zsh"],
               "fish": ["--no-config", "-c", ASK[shell]]}  # fmt: skip
    return subprocess.run(
        [shell, *options[shell], *words], cwd=site, capture_output=True, text=True, check=False,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(site), "LANG": "C.UTF-8", "TERM": "dumb"},
    )  # fmt: skip


def list_offers(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The words that are offered, without their descriptions."""
    if done.stdout.startswith("*: :(("):  # zsh: "value":"description" "value"…
        return set(re.findall(r'[( ]"([^"]+)"(?=[ :)])', done.stdout))
    return {line.partition("\t")[0] for line in done.stdout.splitlines()} - {""}


@pytest.mark.parametrize("line", first_cases(LINES, 5))
def test_tab_offers_commands_options_versions_and_names(shell: str, site: Path, line: str) -> None:
    done = press_tab(shell, site, line)
    assert list_offers(done) == LINES[line]
    assert done.stderr == ""


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_cluster_yaml_prints_nothing_and_runs_nothing(
    shell: str, site: Path, name: str
) -> None:
    (site / f"{name}.yaml").write_text(WRONG[name])
    done = press_tab(shell, site, f"bundler seal renew -c {name}.yaml ")
    assert done.stderr == ""
    offers = list_offers(done)  # fish offers files where there is nothing else
    assert offers <= set(os.listdir(site))
    assert not (site / "pwned").exists()


def test_the_installed_script_is_the_one_that_is_shown(shell: str, site: Path) -> None:
    done = subprocess.run(
        [BIN / "bundler", "--install-completion", shell],
        env={"PATH": "/usr/bin:/bin", "HOME": str(site), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True, check=False, cwd=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = [
        path
        for path in site.rglob("*")
        if path.is_file() and "bundler" in path.name and path.suffix != ".json"
    ]
    contents = "".join(path.read_text() for path in (*written, *site.glob(".zfunc/*")))
    assert "_BUNDLER_COMPLETE=complete_" in contents
