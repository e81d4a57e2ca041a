"""pod-guard.sh: which pods' packets pass, and which rules come first."""

import subprocess
import time
from pathlib import Path

from support.shells import SHELLS, TEMPLATES, Sh, write_program

GUARD = TEMPLATES / "kube-router/rootfs/opt/k8s/libexec/pod-guard.sh"
JUMP = '-m comment --comment "kube-router netpol - 4IA2" -j KUBE-ROUTER'
RULES = f"""-P FORWARD ACCEPT
-N KUBE-ROUTER-FORWARD
-A INPUT {JUMP}-INPUT
-A FORWARD {JUMP}-FORWARD
-A OUTPUT {JUMP}-OUTPUT
-A KUBE-ROUTER-FORWARD -d 10.200.0.10/32 -m comment --comment "to db" -j KUBE-POD-FW-AAA
-A KUBE-ROUTER-FORWARD -s 10.200.0.10/32 -m comment --comment "from db" -j KUBE-POD-FW-AAA
-A KUBE-ROUTER-FORWARD -d 10.200.0.11/32 -m comment --comment "half" -j KUBE-POD-FW-BBB
-A KUBE-ROUTER-FORWARD -s 10.9.9.9/32 -j ACCEPT
"""


class Host:
    """A host whose iptables and ipset write down what they are called with."""

    def __init__(self, place: Path) -> None:
        self.place, self.calls = place, place / "calls"
        (place / "run/kube-pod-guard").mkdir(parents=True)
        (place / "rules").write_text(RULES)
        self.calls.write_text("")
        for name in ("iptables", "ip6tables"):
            write_program(place / f"bin/{name}", f"""
echo "{name} $*" >>{self.calls}
case " $* " in
    *" -w -S "*) [ ! -e {place}/broken ] || exit 4; cat {place}/rules ;;
    *" -C "* | *" -D "* | *" mangle -S "*) exit 1 ;;
esac
""")  # fmt: skip
            for end in ("restore", "save"):
                write_program(
                    place / f"bin/{name}-{end}",
                    f'echo "{name}-{end} $*" >>{self.calls}\ncat >>{self.calls} </dev/stdin\n',
                )
        write_program(
            place / "bin/ipset",
            f'echo "ipset $*" >>{self.calls}\ncase " $* " in *" restore "*) cat >>{self.calls} ;; esac\n',
        )
        write_program(place / "bin/systemctl", f"cat {place}/enabled\n")
        (place / "enabled").write_text("enabled\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DESTDIR": str(self.place), "PATH": f"{self.place}/bin:/usr/bin:/bin", "INTERVAL": "0.1",
        }  # fmt: skip

    def read(self) -> list[str]:
        return self.calls.read_text().splitlines()

    def watch(self, shell: list[str], until: str) -> list[str]:
        process = subprocess.Popen(
            [*shell, str(GUARD), "watch"], env=self.environment, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 60
            while until not in self.calls.read_text():
                assert time.monotonic() < deadline, self.read()
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait()
        return self.read()


def test_the_guard_drops_packets_of_pods_that_are_not_in_the_set(sh: Sh, tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert sh(GUARD, "up", **host.environment).returncode == 0
    calls = host.read()
    assert "ipset -exist create kube-pod-guard hash:ip" in calls
    chain = [line for line in calls if line.startswith("-A KUBE-POD-GUARD")]
    assert chain[:3] == [
        "-A KUBE-POD-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-A KUBE-POD-GUARD -i cni0 -m set ! --match-set kube-pod-guard src -j DROP",
        "-A KUBE-POD-GUARD -o cni0 -m addrtype ! --src-type LOCAL -m set ! --match-set kube-pod-guard dst -j DROP",
    ]
    for hook in ("FORWARD", "INPUT", "OUTPUT"):
        assert f"iptables -w -t mangle -I {hook} -j KUBE-POD-GUARD" in calls


def test_only_pods_with_rules_for_both_directions_are_in_the_set(tmp_path: Path) -> None:
    for number, shell in enumerate(param for param in SHELLS):
        host = Host(tmp_path / str(number))
        calls = host.watch(list(shell), "destroy kube-pod-guard-new")
        assert [line for line in calls if line.startswith("add ")] == [
            "add kube-pod-guard-new 10.200.0.10"
        ]
        assert not [line for line in calls if "comment kube-pod-guard" in line]


def test_a_rule_in_front_of_kube_routers_is_overtaken(tmp_path: Path) -> None:
    host = Host(tmp_path)
    front = "-A FORWARD -s 10.200.0.0/16 -j ACCEPT\n"
    (tmp_path / "rules").write_text(RULES.replace("-A FORWARD", f"{front}-A FORWARD", 1))
    calls = host.watch(["dash"], "comment kube-pod-guard")
    assert (
        "iptables -w -I FORWARD -m comment --comment kube-pod-guard -j KUBE-ROUTER-FORWARD" in calls
    )
    assert not [line for line in calls if "-I INPUT -m comment" in line]


def test_the_guards_own_jump_goes_when_kube_routers_is_the_first_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    own = "-A FORWARD -m comment --comment kube-pod-guard -j KUBE-ROUTER-FORWARD\n"
    (tmp_path / "rules").write_text(RULES.replace("-A OUTPUT", f"{own}-A OUTPUT", 1))
    calls = host.watch(["dash"], "comment kube-pod-guard")
    assert (
        "iptables -w -D FORWARD -m comment --comment kube-pod-guard -j KUBE-ROUTER-FORWARD" in calls
    )


def test_the_set_stays_while_the_rules_cannot_be_read(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "broken").touch()
    calls = host.watch(["dash"], "iptables -w -S\niptables -w -S\n")
    assert not [line for line in calls if line.startswith("ipset") and "restore" in line]


def test_rules_stay_after_a_stop_and_go_with_a_unit_that_is_disabled(
    sh: Sh, tmp_path: Path
) -> None:
    host = Host(tmp_path)
    for state in ("enabled", "", "Failed to connect to bus"):
        (tmp_path / "enabled").write_text(state)
        assert sh(GUARD, "release", **host.environment).returncode == 0
        assert sh(GUARD, "release-policies", **host.environment).returncode == 0
    assert host.read() == []
    (tmp_path / "enabled").write_text("disabled\n")
    sh(GUARD, "release", **host.environment)
    assert "ipset destroy kube-pod-guard" in host.read()
    assert "iptables -w -t mangle -X KUBE-POD-GUARD" in host.read()


def test_an_unknown_action_is_refused(sh: Sh) -> None:
    assert sh(GUARD, "sideways").returncode == 2
