"""The command line: output, exit codes, and no lost files."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import run_bundler
from support.json_shapes import read_shape

from bundler.cli import app as cli

PINS = Path(__file__).parents[2] / "golden" / "pins.yaml"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bundler(description: Path, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_bundler(
            [*arguments],
            cwd=description.parent, capture_output=True, text=True, check=False,
            env={"BUNDLER_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip

    return run


def test_version_and_help_show_how_to_start(bundler: Run) -> None:
    assert bundler("--version").stdout.startswith("bundler 0.")
    for command in ("build", "check", "render", "inspect"):
        said = bundler(command, "--help")
        assert said.returncode == 0
        assert "Usage" in said.stdout
    assert "verify.sh" in bundler("--help").stdout
    assert "MIRROR/HOST/PATH" in bundler("build", "--help").stdout
    assert "NAME.state" in bundler("help", "build").stdout


def test_check_accepts_the_example_and_writes_nothing(bundler: Run, description: Path) -> None:
    done = bundler("check", "--pins", str(PINS))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "no problems found" in done.stderr
    assert [path.name for path in description.parent.iterdir()] == ["cluster.yaml"]


def test_a_file_that_ends_early_is_an_error_with_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typer's own answer is "Aborted!"."""

    def end(*_: object) -> None:
        raise EOFError("x.tar: the file ended early")

    monkeypatch.setattr("bundler.cli.check.check", end)
    monkeypatch.setattr("sys.argv", ["bundler", "check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 6
    shown = capsys.readouterr().err
    assert "a file ends early: x.tar: the file ended early" in shown
    assert "Aborted" not in shown


def test_a_wrong_cluster_yaml_gives_exit_code_2_and_every_error(
    bundler: Run, description: Path
) -> None:
    description.write_text(
        description.read_text().replace("ipvs", "userspace").replace("eth0", "eth 0")
    )
    done = bundler("check", "--pins", str(PINS))
    assert done.returncode == 2
    assert done.stderr.count("cluster.yaml:") == 2
    assert "Traceback" not in done.stderr


def test_a_component_without_a_pin_is_refused_with_the_lines_to_add(
    bundler: Run, description: Path
) -> None:
    description.write_text(
        description.read_text().replace("{version: 3.4.23}", "{version: 3.4.99}")
    )
    done = bundler("build", "--offline")
    assert done.returncode == 3
    assert "etcd 3.4.99 (amd64) has no built-in pin" in done.stderr
    assert "url: https://github.com/etcd-io/etcd/releases/download/v3.4.99/" in done.stderr
    assert "sha256: <64 hexadecimal digits>" in done.stderr
    assert not (description.parent / "lab.state").exists()


def test_a_dry_run_shows_what_would_be_done_and_writes_nothing(
    bundler: Run, description: Path
) -> None:
    done = bundler("build", "--dry-run", "--pins", str(PINS), "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "fetch   https://dl.k8s.io/v1.20.2/kubernetes-server-linux-amd64.tar.gz" in done.stdout
    assert "create" in done.stdout
    assert done.stdout.count("write   out/lab-") == 5
    assert [path.name for path in description.parent.iterdir()] == ["cluster.yaml"]


def test_a_build_with_missing_files_creates_no_keys_and_no_bundles(
    bundler: Run, description: Path
) -> None:
    done = bundler("build", "--offline", "--pins", str(PINS))
    assert done.returncode == 3
    assert "kubernetes-server 1.20.2 (amd64): no source has the file" in done.stderr
    assert "cni-plugins" in done.stderr
    assert sorted(path.name for path in description.parent.iterdir()) == ["cluster.yaml"]


@pytest.mark.slow
def test_render_reuses_the_state_and_refuses_a_directory_with_other_files(
    bundler: Run, description: Path
) -> None:
    arguments = ("render", "--text-only", "--pins", str(PINS), "-o", "trees")
    assert bundler(*arguments).returncode == 0
    tree = description.parent / "trees" / "master1"
    first = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    again = bundler(*arguments)
    assert again.returncode == 0
    assert "created" not in again.stderr
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == first
    (tree / "MANIFEST").unlink()
    refused = bundler(*arguments)
    assert refused.returncode == 2
    assert "is not empty, and it is not a rendered tree" in refused.stderr


@pytest.mark.slow
def test_a_new_control_plane_reissues_only_the_certificates_that_must_change(
    bundler: Run, description: Path
) -> None:
    arguments = ("render", "--text-only", "--pins", str(PINS), "-o", "trees")
    text = description.read_text()
    master3 = next(line for line in text.splitlines(keepends=True) if "name: master3" in line)
    description.write_text(text.replace(master3, ""))
    assert bundler(*arguments).returncode == 0
    worker = (
        description.parent / "trees/worker1/rootfs/etc/kubernetes/kube-proxy.kubeconfig"
    ).read_bytes()
    description.write_text(text)
    done = bundler(*arguments)
    assert "apiserver of master1: issued again" in done.stderr
    assert "certificates of master3: created" in done.stderr
    assert "kube-proxy" not in done.stderr
    assert (
        description.parent / "trees/worker1/rootfs/etc/kubernetes/kube-proxy.kubeconfig"
    ).read_bytes() == worker


@pytest.mark.slow
def test_a_worker_keeps_its_pod_subnet_when_another_is_added_before_it(
    bundler: Run, description: Path
) -> None:
    arguments = ("render", "--text-only", "--pins", str(PINS), "-o", "trees")
    assert bundler(*arguments).returncode == 0
    new = "  - {name: worker0, address: 172.30.20.20, roles: [worker]}\n"
    text = description.read_text()
    worker1 = next(line for line in text.splitlines(keepends=True) if "name: worker1" in line)
    description.write_text(text.replace(worker1, new + worker1))
    assert bundler(*arguments).returncode == 0
    subnets = {
        name: next(
            line for line in (description.parent / f"trees/{name}/state.env").read_text().splitlines()
            if line.startswith("POD_SUBNET")
        )
        for name in ("worker0", "worker1", "worker2")
    }  # fmt: skip
    assert subnets == {
        "worker0": "POD_SUBNET='10.200.2.0/24'",
        "worker1": "POD_SUBNET='10.200.0.0/24'",
        "worker2": "POD_SUBNET='10.200.1.0/24'",
    }


@pytest.mark.slow
def test_no_secret_is_printed(bundler: Run, description: Path) -> None:
    done = bundler("render", "--text-only", "--pins", str(PINS), "-o", "trees")
    said = done.stdout + done.stderr
    state = description.parent / "lab.state"
    secrets = [
        path.read_text().strip()
        for path in state.rglob("*")
        if path.is_file() and "token" in str(path)
    ]
    assert secrets
    assert not any(secret and secret in said for secret in secrets)
    assert "PRIVATE" not in said


def test_explain_shows_value_reason_and_minors_of_each_flag(bundler: Run) -> None:
    said = bundler("explain", "kube-controller-manager", "--version", "1.18").stdout
    assert "--experimental-cluster-signing-duration=8760h\n" in said
    assert "[before 1.19]" in said
    assert "--cluster-signing-duration" not in said.replace("--experimental-cluster", "")
    rows = read_shape(
        bundler("explain", "kubelet", "--version", "v1.20.2", "--json").stdout, "flags"
    )["flags"]
    assert {
        "flag",
        "value",
        "why",
        "fixed",
        "since",
        "until",
        "feature",
        "on_host",
        "repeated",
    } == set(rows[0])
    for arguments in (
        ("kubelett", "--version", "1.20"),
        ("kubelet", "--version", "x"),
        ("kubelet", "--version", "1.99"),
    ):
        assert bundler("explain", *arguments).returncode == 2


def test_an_unexpected_os_error_is_shown_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/media/part")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 6
    assert "/media/part: Input/output error" in capsys.readouterr().err
