"""pod-routes.sh: the static routes between pod subnets."""

from pathlib import Path

from support.shells import TEMPLATES, Sh, write_program

ROUTES = TEMPLATES / "network-static/rootfs/opt/k8s/libexec/pod-routes.sh"


TABLE = "# a comment\npod-cidr\t10.200.0.0/16\nown\t10.200.0.0/24\nroute\t10.200.1.0/24\t192.0.2.2\nroute\t10.200.2.0/24\t192.0.2.3\n"


def run_routes(
    sh: Sh, tmp_path: Path, action: str, table: str, present: str = "", forward: str = ""
) -> list[str]:
    (tmp_path / "etc/kubernetes").mkdir(parents=True, exist_ok=True)
    (tmp_path / "etc/kubernetes/pod-routes.tsv").write_text(table)
    (tmp_path / "present").write_text(present)
    (tmp_path / "calls").write_text("")
    write_program(
        tmp_path / "bin/ip",
        f'echo "ip $*" >>{tmp_path}/calls\ncase "$*" in *"route show"*) cat {tmp_path}/present ;; esac\n',
    )
    write_program(
        tmp_path / "bin/iptables",
        f'echo "iptables $*" >>{tmp_path}/calls\ncase " $* " in *" -C "* | *" -D "*) exit 1 ;; *" -S FORWARD 1 "*) echo "{forward}" ;; esac\n',
    )
    done = sh(ROUTES, action, DESTDIR=str(tmp_path), PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "calls").read_text().splitlines()


def test_every_other_worker_gets_a_route_and_stale_routes_are_deleted(
    sh: Sh, tmp_path: Path
) -> None:
    present = "10.200.1.0/24 via 192.0.2.2 dev eth0 \n10.200.9.0/24 via 192.0.2.9 dev eth0 \n"
    calls = run_routes(sh, tmp_path, "up", TABLE, present)
    assert "ip route replace 10.200.1.0/24 via 192.0.2.2 proto 112" in calls
    assert "ip route replace 10.200.2.0/24 via 192.0.2.3 proto 112" in calls
    assert [call for call in calls if "route del" in call] == [
        "ip route del 10.200.9.0/24 proto 112"
    ]
    assert (
        "iptables -w -t nat -I POSTROUTING -s 10.200.0.0/24 ! -d 10.200.0.0/16 -j MASQUERADE"
        in calls
    )
    assert "iptables -w -t filter -I FORWARD -d 10.200.0.0/16 -j ACCEPT" in calls


def test_pods_are_accepted_after_the_rules_of_network_policies(sh: Sh, tmp_path: Path) -> None:
    jump = "-A FORWARD -m comment --comment kube-router -j KUBE-ROUTER-FORWARD"
    calls = run_routes(sh, tmp_path, "up", TABLE, forward=jump)
    assert "iptables -w -t filter -I FORWARD 2 -s 10.200.0.0/16 -j ACCEPT" in calls
    assert (
        "iptables -w -t nat -I POSTROUTING -s 10.200.0.0/24 ! -d 10.200.0.0/16 -j MASQUERADE"
        in calls
    )


def test_a_node_without_pods_gets_routes_but_no_rules(sh: Sh, tmp_path: Path) -> None:
    calls = run_routes(
        sh, tmp_path, "up", "pod-cidr\t10.200.0.0/16\nroute\t10.200.1.0/24\t192.0.2.2\n"
    )
    assert any("route replace" in call for call in calls)
    assert not any(call.startswith("iptables") for call in calls)


def test_down_removes_routes_and_rules(sh: Sh, tmp_path: Path) -> None:
    calls = run_routes(sh, tmp_path, "down", TABLE)
    assert "ip -4 route flush proto 112" in calls
    assert len([call for call in calls if " -D " in call]) == 3


def test_an_unknown_action_is_refused(sh: Sh) -> None:
    assert sh(ROUTES, "sideways").returncode == 2
