"""The state directory: tokens, the encryption key, pod subnets, the lock, and atomic writes."""

import os
import stat
import subprocess
import sys
import threading
from ipaddress import IPv4Network

import pytest
import yaml

from bundler.errors import ConfigError, OutputError, PkiError
from bundler.state.directory import open_state
from bundler.state.encryption import ensure_encryption_keys

CIDR = IPv4Network("10.200.0.0/16")


@pytest.fixture
def state(tmp_path):
    with open_state(tmp_path / "state", create=True) as opened:
        yield opened


def allocate(state, *names, cidr=CIDR, prefix=24):
    return {name: str(net) for name, net in state.ensure_pod_subnets(names, cidr, prefix).items()}


def test_the_directory_is_created_with_its_parents_as_0700(tmp_path):
    path = tmp_path / "a" / "b" / "state"
    with open_state(path, create=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_that_other_users_can_enter_is_refused(tmp_path):
    path = tmp_path / "state"
    path.mkdir(mode=0o755)
    with pytest.raises(PkiError, match=r"mode 0755") as caught, open_state(path, create=True):
        pass
    assert caught.value.hint == f"chmod -R go= {path}"


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write"),
        open_state(tmp_path / "state", create=True),
    ):
        pass


def test_temporary_files_of_a_killed_run_are_removed(tmp_path):
    path = tmp_path / "state"
    with open_state(path, create=True) as state:
        state.make_directory(path / "tokens")
    (path / ".tmp-abc").write_text("half")
    (path / "tokens" / ".tmp-def").mkdir()
    (path / "tokens" / ".tmp-def" / "key.pem").write_text("half")
    with open_state(path, create=True):
        pass
    assert sorted(each.name for each in path.rglob("*")) == [".lock", "tokens"]


def test_the_members_of_the_first_build_stay_the_initial_members(state):
    assert state.ensure_initial_etcd_members(["a"]) == ("a",)
    assert state.ensure_initial_etcd_members(["b", "a", "c"]) == ("a",)
    assert state.ensure_initial_etcd_members(["b", "a"]) == ("a",)
    assert stat.S_IMODE((state.directory / "etcd-founders").stat().st_mode) == 0o600


def test_all_members_become_initial_members_if_none_is_left(state):
    state.ensure_initial_etcd_members(["a"])
    assert state.ensure_initial_etcd_members(["b", "c"]) == ("b", "c")
    assert state.ensure_initial_etcd_members(["a", "b", "c"]) == ("b", "c")


def test_in_an_older_state_members_with_certificates_are_initial_members(state):
    (state.directory / "pki/nodes/a/etcd-peer").mkdir(parents=True)
    assert state.ensure_initial_etcd_members(["a", "b", "c"]) == ("a",)


def test_pod_subnets_are_allocated_in_order(state):
    assert allocate(state, "worker1", "worker2") == {
        "worker1": "10.200.0.0/24",
        "worker2": "10.200.1.0/24",
    }


def test_a_pod_subnet_stays_when_nodes_come_and_go(state):
    allocate(state, "worker1", "worker2")
    assert allocate(state, "worker0", "worker2") == {
        "worker0": "10.200.2.0/24",
        "worker2": "10.200.1.0/24",
    }
    assert allocate(state, "worker1")["worker1"] == "10.200.0.0/24"


def test_the_subnet_of_a_removed_node_is_reused_only_if_no_other_is_free(state):
    small = IPv4Network("10.200.0.0/22")
    allocate(state, "a", "b", "c", cidr=small)
    assert allocate(state, "b", "c", "d", cidr=small)["d"] == "10.200.3.0/24"
    assert allocate(state, "b", "c", "d", "e", cidr=small)["e"] == "10.200.0.0/24"
    with pytest.raises(ConfigError, match="holds 4 pod subnets of /24, but there are 5 workers"):
        allocate(state, "a", "b", "c", "d", "e", cidr=small)
    assert allocate(state, "e", cidr=small) == {"e": "10.200.0.0/24"}


@pytest.mark.parametrize(("cidr", "prefix"), [("10.201.0.0/16", 24), ("10.200.0.0/16", 25)])
def test_a_changed_pod_range_is_refused_with_the_old_range(state, cidr, prefix):
    allocate(state, "worker1")
    with pytest.raises(ConfigError, match=r"since the first build") as caught:
        allocate(state, "worker1", cidr=IPv4Network(cidr), prefix=prefix)
    assert "network.pod_cidr: 10.200.0.0/16 and network.pod_subnet_prefix: 24" in caught.value.hint


def test_a_prefix_wider_than_the_range_is_refused(state):
    with pytest.raises(ConfigError, match="pod_subnet_prefix 20 is wider"):
        allocate(state, "worker1", cidr=IPv4Network("10.200.0.0/24"), prefix=20)


def test_allocations_are_written_only_when_they_change(state):
    allocate(state, "worker1")
    before = (state.directory / "allocations.yaml").stat()
    allocate(state, "worker1")
    after = (state.directory / "allocations.yaml").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("name", ["1", "0x10", "on", "null", "1e3"])
def test_node_names_that_yaml_would_convert_are_kept(state, name):
    assert allocate(state, name) == allocate(state, name)
    assert list(yaml.safe_load((state.directory / "allocations.yaml").read_text())["nodes"]) == [
        name
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "nodes: {",
        "pod_cidr: 10.200.0.0/16\npod_subnet_prefix: 24\nnodes: [worker1]\n",
        "pod_cidr: 10.200.0.0/16\npod_subnet_prefix: 24\nnodes: {worker1: 10.200.0.1/24}\n",
        "pod_cidr: 10.200.0.0/16\npod_subnet_prefix: 24\nnodes: {a: 10.9.0.0/24}\n",
        (
            "pod_cidr: 10.200.0.0/16\npod_subnet_prefix: 24\n"
            "nodes: {a: 10.200.0.0/24, b: 10.200.0.0/24}"
        ),
    ],
)
def test_damaged_allocations_are_refused_and_kept(state, text):
    path = state.directory / "allocations.yaml"
    state.write_file(path, text.encode())
    with pytest.raises(PkiError, match=r"allocations\.yaml") as caught:
        allocate(state, "worker1")
    assert "backup" in caught.value.hint
    assert path.read_text() == text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(state, monkeypatch):
    path = state.directory / "encryption-key"
    state.write_file(path, b"old")

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundler.state.directory.os.fsync", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        state.write_file(path, b"new")
    with pytest.raises(OutputError, match="No space left on device"):
        state.write_directory(state.directory / "pair", {"key.pem": b"new"})
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(state.directory)) == [".lock", "encryption-key"]


def test_a_second_build_waits_for_the_first_and_reports_it(tmp_path):
    path = tmp_path / "state"
    messages, order = [], []
    waiting = threading.Event()

    def notify(message):
        messages.append(message)
        waiting.set()

    def second():
        with open_state(path, create=True, notify=notify):
            order.append("second")

    with open_state(path, create=True):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert messages == [f"{path} is in use by another build; waiting for it to finish"]
    assert order == ["first", "second"]


def test_the_lock_of_a_killed_build_is_released(tmp_path):
    path = tmp_path / "state"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom bundler.state.directory import open_state\n"
        "with open_state(Path(sys.argv[1]), create=True):\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    with open_state(path, create=True, notify=pytest.fail) as state:
        ensure_encryption_keys(state)
