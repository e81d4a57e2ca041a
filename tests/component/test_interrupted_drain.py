"""A worker that is killed, or loses power, while it is drained: a real API server, and the kubelet's own rights."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.external_ca_cluster import find_programs
from support.join_cluster import Build, Builder, Client, run_control_plane
from support.networks import take_network
from support.worker_hosts import WorkerHost

NODE = "/api/v1/nodes/w1"
KILL = "kill -9 $$"
DRAIN = "take_drain_slot; drain_node"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """The bundles of a cluster with two workers, whose control plane runs."""
    directory = tmp_path_factory.mktemp("drained")
    programs = find_programs(directory / "bin")
    build = Builder(directory, take_network(), programs, ("w1", "w2")).build()
    with run_control_plane(build, elects_leader=True):
        build.join("w1")
        build.join("w2")
        yield build


@pytest.fixture(scope="module")
def installed(build: Build, tmp_path_factory: pytest.TempPathFactory) -> WorkerHost:
    host = WorkerHost(build, "w1", tmp_path_factory.mktemp("w1"))
    host.install()
    return host


@pytest.fixture
def worker(installed: WorkerHost, build: Build) -> WorkerHost:
    build.register("w1")
    build.register("w2")
    return installed


@pytest.fixture
def admin(build: Build) -> Iterator[Client]:
    admin = Client.read(build.root("cp1") / "etc/kubernetes/admin.kubeconfig")
    yield admin
    cordon(admin, None)


def cordon(admin: Client, cordoned: bool | None) -> None:
    """What `kubectl cordon` and `kubectl uncordon` send."""
    patch = {"spec": {"unschedulable": cordoned}}
    assert admin.send("PATCH", NODE, patch, "strategic-merge-patch+json").status == 200


def read(admin: Client) -> tuple[bool, set[str]]:
    """Whether w1 is cordoned, and its annotations of bundler."""
    node: dict[str, Any] = admin.send("GET", NODE).body
    annotations = node["metadata"].get("annotations", {})
    return bool(node["spec"].get("unschedulable")), {
        name for name in annotations if name.startswith("bundler/")
    }


def kill_while_drained(worker: WorkerHost, admin: Client) -> None:
    done = worker.drain(f"evict_pods() {{ {KILL}; }}; {DRAIN}")
    assert done.returncode == -9, done.stdout + done.stderr
    assert read(admin) == (True, {"bundler/cordoned", "bundler/turn"})


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


@pytest.mark.long
def test_an_undisturbed_drain_leaves_nothing(worker: WorkerHost, admin: Client) -> None:
    done = worker.drain(f"{DRAIN}; uncordon_node; exit 0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "w1 is uncordoned" in done.stdout
    assert (read(admin), worker.records()) == ((False, set()), set())


def test_nobody_runs_install_sh_again_and_the_node_is_uncordoned(
    worker: WorkerHost, admin: Client
) -> None:
    kill_while_drained(worker, admin)
    said = finish(worker.start_uncordoning())
    assert "w1 is uncordoned" in said
    assert (read(admin), worker.records()) == ((False, set()), set())


def test_the_next_run_that_has_nothing_to_do_uncordons_the_node(
    worker: WorkerHost, admin: Client
) -> None:
    kill_while_drained(worker, admin)
    assert worker.drain("end_interrupted_drain; exit 0").returncode == 0
    assert (read(admin), worker.records()) == ((False, set()), set())


def test_it_waits_for_a_run_that_is_alive_and_for_a_node_that_is_ready(
    worker: WorkerHost, admin: Client
) -> None:
    """A node that is not Ready, and the files of two bundles, are no end of a drain either."""
    kill_while_drained(worker, admin)
    with subprocess.Popen(["sleep", "60"]) as other:
        stat = Path(f"/proc/{other.pid}/stat").read_text()
        begun = stat.rsplit(") ", 1)[1].split()[19]
        (worker.store / "lock").write_text(f"{other.pid} {begun}\n")
        (worker.store / "switch").write_text("1 2 back\n")
        service = worker.start_uncordoning()
        with pytest.raises(subprocess.TimeoutExpired):
            service.wait(2)
        other.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        service.wait(2)
    make_unready(admin)
    (worker.store / "switch").unlink()
    with pytest.raises(subprocess.TimeoutExpired):
        service.wait(3)
    assert read(admin)[0]
    worker.build.register("w1")
    finish(service)
    assert (read(admin), worker.records()) == ((False, set()), set())


def make_unready(admin: Client) -> None:
    """What the node controller writes when a kubelet does not report."""
    moment = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "False", "lastHeartbeatTime": moment}
    patch = {"status": {"conditions": [ready]}}
    answer = admin.send("PATCH", f"{NODE}/status", patch, "strategic-merge-patch+json")
    assert answer.status == 200, answer


@pytest.mark.long
def test_a_cordon_that_an_administrator_set_before_the_drain_stays(
    worker: WorkerHost, admin: Client
) -> None:
    cordon(admin, True)
    assert worker.drain(f"evict_pods() {{ {KILL}; }}; {DRAIN}").returncode == -9
    assert worker.records() == {"ticket"}
    finish(worker.start_uncordoning())
    assert (read(admin), worker.records()) == ((True, set()), set())


@pytest.mark.long
def test_a_cordon_that_an_administrator_set_after_the_kill_stays(
    worker: WorkerHost, admin: Client
) -> None:
    """The record is written, and then the host dies: the Node was not cordoned."""
    dies = f'cordon_node() {{ write_line "$store/cordoned" "$(print_time)"; {KILL}; }}'
    assert worker.drain(f"{dies}; {DRAIN}").returncode == -9
    assert (read(admin), worker.records()) == ((False, {"bundler/turn"}), {"cordoned", "ticket"})
    cordon(admin, True)
    said = finish(worker.start_uncordoning())
    assert "w1 stays cordoned, because somebody else cordoned it: kubectl uncordon w1" in said
    assert (read(admin), worker.records()) == ((True, set()), set())
