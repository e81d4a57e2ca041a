"""flannel-started.sh writes the CNI configuration, or sets the address of dockerd's bridge."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh, write_program

CNI = TEMPLATES / "flannel-kubernetes/rootfs/opt/k8s/libexec/flannel-started.sh"
DOCKER = TEMPLATES / "flannel-etcd/rootfs/opt/k8s/libexec/flannel-started.sh"
SUBNET = """\
FLANNEL_NETWORK=10.200.0.0/16
FLANNEL_SUBNET=10.200.3.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


@pytest.fixture
def host(tmp_path: Path) -> Callable[[str], Path]:
    """A host whose flannel has a subnet or none; docker0 has the given address."""

    def make(subnet: str = SUBNET, bridge: str = "172.17.0.1/16") -> Path:
        (tmp_path / "run/flannel").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run/flannel/subnet.env").write_text(subnet)
        write_program(
            tmp_path / "bin/ip", f"echo '3: docker0 inet {bridge} scope global docker0'\n"
        )
        write_program(tmp_path / "bin/systemctl", f'echo "$*" >>{tmp_path}/calls\n')
        (tmp_path / "calls").write_text("")
        return tmp_path

    return make


def run(sh: Sh, script: Path, root: Path) -> int:
    return sh(script, DESTDIR=str(root), PATH=f"{root}/bin:/usr/bin:/bin").returncode


def test_the_cni_configuration_has_the_subnet_of_the_node(
    sh: Sh, host: Callable[..., Path]
) -> None:
    root = host()
    target = root / "etc/cni/net.d/10-flannel.conflist"
    assert run(sh, CNI, root) == 0
    first = target.stat().st_mtime_ns
    chain = json.loads(target.read_text())["plugins"]
    assert chain[0]["ipam"]["ranges"] == [[{"subnet": "10.200.3.0/24"}]]
    assert (chain[0]["mtu"], chain[1]["type"]) == (1450, "portmap")
    assert run(sh, CNI, root) == 0
    assert target.stat().st_mtime_ns == first, "an equal file is not written again"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("script", [CNI, DOCKER], ids=["cni", "docker"])
def test_without_a_subnet_no_file_is_written(
    sh: Sh, host: Callable[..., Path], script: Path
) -> None:
    root = host(subnet="")
    assert run(sh, script, root) != 0
    assert not (root / "etc/cni/net.d/10-flannel.conflist").exists()
    assert not (root / "run/flannel/docker-ready").exists()


@pytest.mark.parametrize(
    ("bridge", "calls"),
    [("172.17.0.1/16", "try-restart docker.service\n"), ("10.200.3.1/24", "")],
)
def test_dockerd_is_restarted_only_if_its_bridge_has_another_address(
    sh: Sh, host: Callable[..., Path], bridge: str, calls: str
) -> None:
    root = host(bridge=bridge)
    assert run(sh, DOCKER, root) == 0
    assert (root / "run/flannel/docker").read_text() == (
        "DOCKER_NETWORK_OPTIONS=--bip=10.200.3.1/24 --ip-masq=false --mtu=1450\n"
    )
    assert (root / "calls").read_text() == calls
    assert (root / "run/flannel/docker-ready").exists()
