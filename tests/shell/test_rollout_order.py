"""The rollout order: each host asks the others about quorum, API servers and versions."""

import json
from pathlib import Path

import pytest
from support.shells import TEMPLATES, Sh

SCRIPT = """
set -u
work={work} here={lib}/.. dry_run=no slot_wait=0
NODE=m1 ADDRESS=192.0.2.1 API_PORT=6443 KUBERNETES_VERSION=1.21.3 ETCD_VERSION=3.4.23
KUBELET_ROOT=/var/lib/kubelet ENDPOINT=https://192.0.2.9:8443 UNITS='etcd.service kube-apiserver.service'
NODES='m1|192.0.2.1|etcd,control-plane m2|192.0.2.2|etcd,control-plane m3|192.0.2.3|etcd,control-plane w1|192.0.2.4|worker'
ETCD_ENDPOINTS='https://192.0.2.1:2379 https://192.0.2.2:2379 https://192.0.2.3:2379'
. {lib}/core/common.sh; . {lib}/coordination/rollout-order.sh; . {lib}/coordination/keys.sh; . {lib}/coordination/key-stages.sh
prefix={work}/root store={work}/store
is_generation() {{ false; }}
is_pending() {{ false; }}
systemctl() {{ :; }}
kubectl() {{ :; }}
add_failure() {{ echo "FAILURE $1: $2"; echo "FIX: $3"; }}
has_only_nospace() {{ false; }}
is_etcd_serving() {{ serving=${{1#https://}} && check_url "${{serving%:*}}"; }}
check_url() {{ case " $HEALTHY " in *" $1 "*) ;; *) return 1 ;; esac; }}
version_of() {{ printf '%s\\n' $VERSIONS | sed -n "s/^$1=//p"; }}
https_get() {{
    case $3 in
        /members) printf '%s\\n' "$MEMBERS" ;;
        *) printf '200\\n{{ "gitVersion": "v%s", "etcdserver": "%s" }}\\n' "$(version_of "$1")" "$(version_of "$1")" ;;
    esac
}}
api_server_age() {{ echo "${{AGE-1000}}"; }}
MEMBERS='{members}'
HEALTHY='{healthy}' VERSIONS='{versions}'
{more}
"""
THREE = "192.0.2.1=1.20.2 192.0.2.2=1.20.2 192.0.2.3=1.20.2 192.0.2.9=1.20.2"


def ask(
    sh: Sh, work: Path, command: str, *, due: str = "", healthy: str = "192.0.2.2 192.0.2.3",
    versions: str = THREE, more: str = "", installed: str = "1.20.2", etcd: str = "3.4.23",
    members: str = "000", nodes: str = "",
) -> str:  # fmt: skip
    (work / "restarts").write_text("".join(f"{unit}.service\n" for unit in due.split()))
    env = work / "root/opt/k8s/bundle/node.env"
    env.parent.mkdir(parents=True, exist_ok=True)
    env.write_text(
        f"KUBERNETES_VERSION='{installed}'\nETCD_VERSION='{etcd}'\nNODES='{nodes}'\n"
        "CLUSTER_ETCD_VERSION='3.4.23'\n"
    )
    script = work / "script.sh"
    script.write_text(
        SCRIPT.format(
            work=work, lib=TEMPLATES / "common/lib", healthy=healthy, versions=versions, members=members,
            more=f"{more}\n{command}",
        )
    )  # fmt: skip
    done = sh(script)
    assert done.stderr == ""
    return done.stdout


def test_a_host_that_restarts_nothing_that_others_need_does_not_wait(
    sh: Sh, tmp_path: Path
) -> None:
    assert ask(sh, tmp_path, "check_turn", due="kube-proxy", healthy="", versions="") == ""


@pytest.mark.parametrize(
    ("healthy", "said"),
    [
        ("192.0.2.2 192.0.2.3", ""),
        (
            "192.0.2.3",
            "FAILURE turn: etcd would lose quorum: only 1 of the 2 other members are healthy",
        ),
        (
            "192.0.2.1",
            "FAILURE turn: etcd would lose quorum: only 0 of the 2 other members are healthy",
        ),
    ],
)
def test_etcd_keeps_its_quorum(sh: Sh, tmp_path: Path, healthy: str, said: str) -> None:
    found = ask(sh, tmp_path, "check_turn", due="etcd", healthy=healthy)
    assert found.partition("\n")[0] == said


def list_members(*client_urls: str) -> str:
    """The answer of a member to /members; a member without a client URL never started."""
    rows = [
        {"id": number, "peerURLs": [f"https://192.0.2.{number}:2380"], "name": f"m{number}"}
        | ({"clientURLs": [url]} if url else {})
        for number, url in enumerate(client_urls, 1)
    ]
    return f"200\n{json.dumps(rows, separators=(',', ':'))}"


OF_THREE = [f"https://192.0.2.{number}:2379" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("members", "healthy", "said"),
    [
        # three are planned; the others are not installed yet
        (OF_THREE[:1], "", ""),
        # the second was added: two members never have a quorum without one of them
        (OF_THREE[:2], "192.0.2.2", ""),
        # the third was added and never started: it counts as unhealthy
        ([*OF_THREE[:2], ""], "192.0.2.2", "FAILURE turn: etcd would lose quorum: only 1 of the 2 other members are healthy"),
        # a member that is no longer in cluster.yaml still counts
        ([*OF_THREE, "https://192.0.2.8:2379", "https://192.0.2.9:2379"], "192.0.2.2 192.0.2.3 192.0.2.8", ""),
        (OF_THREE, "192.0.2.2", "FAILURE turn: etcd would lose quorum: only 1 of the 2 other members are healthy"),
    ],
)  # fmt: skip
def test_quorum_is_computed_from_the_actual_members_not_from_the_planned_ones(
    sh: Sh, tmp_path: Path, members: list[str], healthy: str, said: str
) -> None:
    found = ask(
        sh, tmp_path, "check_turn", due="etcd", healthy=healthy, members=list_members(*members)
    )
    assert found.partition("\n")[0] == said


NONE = "192.0.2.2= 192.0.2.3="
ALONE = "m1|192.0.2.1|etcd,control-plane w1|192.0.2.4|worker"
AS_PLANNED = "m1|192.0.2.1|etcd,control-plane m2|192.0.2.2|etcd,control-plane m3|192.0.2.3|etcd,control-plane"
BOTH_SILENT = "FAILURE turn: no other API server answers: the cluster would have none"
TOO_OLD = "FAILURE turn: the API server of m2 has version 1.19.16, more than one minor version from 1.21.3"


@pytest.mark.parametrize(
    ("nodes", "versions", "said"),
    [
        (ALONE, NONE, ""),
        (ALONE, "192.0.2.2=1.21.3 192.0.2.3=", ""),
        (ALONE, "192.0.2.2=1.19.16 192.0.2.3=", TOO_OLD),
        (AS_PLANNED, NONE, BOTH_SILENT),
        (AS_PLANNED.replace("m3|192.0.2.3|etcd,control-plane", "m3|192.0.2.3|worker"), NONE, BOTH_SILENT),
    ],
)  # fmt: skip
def test_an_api_server_that_is_not_installed_yet_is_not_waited_for(
    sh: Sh, tmp_path: Path, nodes: str, versions: str, said: str
) -> None:
    found = ask(sh, tmp_path, "check_turn", due="kube-apiserver", versions=versions, nodes=nodes)
    assert found.partition("\n")[0] == said


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (THREE, ""),
        ("192.0.2.2=1.21.3 192.0.2.3=", ""),
        ("192.0.2.2= 192.0.2.3=", "FAILURE turn: no other API server answers: the cluster would have none"),
        ("192.0.2.2=1.19.16 192.0.2.3=1.20.2", "FAILURE turn: the API server of m2 has version 1.19.16, more than one minor version from 1.21.3"),
    ],
)  # fmt: skip
def test_another_api_server_must_answer_and_have_a_supported_version(
    sh: Sh, tmp_path: Path, versions: str, said: str
) -> None:
    found = ask(sh, tmp_path, "check_turn", due="kube-apiserver", versions=versions)
    assert found.partition("\n")[0] == said


SILENT = "FAILURE turn: the API server of {} does not answer, so its version is unknown, and may be older than this kubelet"
NEW = "192.0.2.1=1.21.3 192.0.2.2=1.21.3 192.0.2.3=1.21.3"
WORKER = "UNITS=kubelet.service NODE=w1 ADDRESS=192.0.2.4"


@pytest.mark.parametrize(
    ("units", "versions", "said"),
    [
        ("kubelet.service", "192.0.2.1=1.21.0 192.0.2.2=1.21.0 192.0.2.3=1.20.2",
         "FAILURE turn: the API server of m3 has version 1.20.2, older than this kubelet: install control planes before workers"),
        ("kubelet.service", "192.0.2.1=1.21.0 192.0.2.2=1.21.0 192.0.2.3=1.21.3", ""),
        # one that restarts may come back with the former version
        ("kubelet.service", "192.0.2.1=1.22.0 192.0.2.2= 192.0.2.3=1.22.0", SILENT.format("m2")),
        ("kubelet.service", "", SILENT.format("m1")),
    ],
)  # fmt: skip
def test_workers_wait_for_control_planes(
    sh: Sh, tmp_path: Path, units: str, versions: str, said: str
) -> None:
    found = ask(
        sh, tmp_path, "check_turn", due="kubelet", versions=versions,
        more=f"UNITS='{units}' NODE=w1 ADDRESS=192.0.2.4",
    )  # fmt: skip
    assert found.partition("\n")[0] == said


@pytest.mark.parametrize(
    ("age", "said"),
    [
        ("7", "FAILURE turn: the API server of m1 was started 7 s ago, and its host may still go back to the former version"),
        ("", "FAILURE turn: the API server of m1 was started 0 s ago, and its host may still go back to the former version"),
        ("100", ""),
    ],
)  # fmt: skip
def test_a_worker_goes_ahead_only_when_no_control_plane_can_go_back_any_more(
    sh: Sh, tmp_path: Path, age: str, said: str
) -> None:
    """Seen: w1 ran 1.34.9 while cp1 went back to 1.33.13."""
    found = ask(sh, tmp_path, "check_turn", due="kubelet", versions=NEW, more=f"{WORKER} AGE={age}")
    assert found.partition("\n")[0] == said


def test_a_worker_without_a_new_minor_waits_for_no_control_plane(sh: Sh, tmp_path: Path) -> None:
    found = ask(
        sh, tmp_path, "check_turn", due="kubelet", versions="", installed="1.21.1", more=WORKER
    )
    assert found == ""


def test_a_worker_asks_again_until_every_api_server_has_answered(sh: Sh, tmp_path: Path) -> None:
    """cp1 does not answer, comes back with the former version, is upgraded again: one line for each."""
    more = f"""{WORKER}; slot_wait=900 n=0
sleep() {{ n=$((n + 1)); case $n in
    1 | 2) VERSIONS='192.0.2.1= 192.0.2.2=1.21.3 192.0.2.3=1.21.3' ;;
    3 | 4) VERSIONS='192.0.2.1=1.20.2 192.0.2.2=1.21.3 192.0.2.3=1.21.3' ;;
    5 | 6) VERSIONS='{NEW}' AGE=$n ;;
    *) AGE=120 ;;
esac; }}"""
    versions = "192.0.2.1= 192.0.2.2=1.21.3 192.0.2.3=1.21.3"
    said = ask(sh, tmp_path, "check_turn; echo done", due="kubelet", versions=versions, more=more)
    wait = "  waiting for this host's rollout slot: the API server of m1"
    assert said.splitlines() == [
        f"{wait} does not answer, so its version is unknown, and may be older than this kubelet",
        f"{wait} has version 1.20.2, older than this kubelet: install control planes before workers",
        f"{wait} was started 5 s ago, and its host may still go back to the former version",
        "done",
    ]


def test_it_does_not_wait_if_another_check_has_failed(sh: Sh, tmp_path: Path) -> None:
    more = 'slot_wait=900; echo "  space: none" >"$work/failures"; sleep() { echo SLEPT; }'
    said = ask(sh, tmp_path, "check_turn", due="etcd", healthy="", more=more)
    assert said.startswith("FAILURE turn: etcd would lose quorum")
    assert "SLEPT" not in said


COMBINED = f"UNITS='kube-apiserver.service kubelet.service' NODES='{AS_PLANNED.replace(',control-plane', ',control-plane,worker')}"


def test_a_combined_host_waits_only_for_control_planes_without_a_kubelet(
    sh: Sh, tmp_path: Path
) -> None:
    found = ask(sh, tmp_path, "check_turn", due="kubelet", more=f"{COMBINED}'")
    assert found == ""
    found = ask(
        sh, tmp_path, "check_turn", due="kubelet", versions="192.0.2.2=1.20.2 192.0.2.8=1.20.2",
        more=f"{COMBINED} m4|192.0.2.8|control-plane'",
    )  # fmt: skip
    assert "FAILURE turn: the API server of m4 has version 1.20.2, older than this kubelet" in found


NEWER = "FAILURE turn: kubelets must not be newer than API server {}: {}; first run install.sh --rollback on those nodes"
OLDER = "FAILURE turn: kubelets must not be more than {} minor versions older than API server {}: {}; first upgrade those nodes, or delete them if they no longer exist"


@pytest.mark.parametrize(
    ("step", "kubelets", "said"),
    [
        ("1.20.2 1.21.3", "w1|v1.19.16 w2|v1.21.9 gone|", ""),
        ("1.20.2 1.21.3", "w1|v1.18.20 w2|v1.19.1 w3|v1.18.1", OLDER.format(2, "1.21.3", "w1 (v1.18.20), w3 (v1.18.1)")),
        ("1.27.1 1.28.0", "w1|v1.25.0", ""),
        ("1.27.1 1.28.0", "w1|v1.24.0", OLDER.format(3, "1.28.0", "w1 (v1.24.0)")),
        ("1.22.0 1.21.3", "m1|v1.22.0 w1|v1.22.0 w2|v1.21.3", NEWER.format("1.21.3", "w1 (v1.22.0)")),
        ("1.21.0 1.21.3", "w1|v1.22.0", ""),  # same minor version as before
    ],
)  # fmt: skip
def test_an_api_server_is_not_upgraded_beyond_the_supported_skew_of_kubelets(
    sh: Sh, tmp_path: Path, step: str, kubelets: str, said: str
) -> None:
    installed, version = step.split()
    more = f"kubectl() {{ printf '%s\n' {' '.join(map(repr, kubelets.split()))}; }}; KUBERNETES_VERSION={version}"
    found = ask(
        sh, tmp_path, "check_turn", due="kube-apiserver", installed=installed, more=more,
        versions=f"192.0.2.2={version} 192.0.2.3={version}",
    )  # fmt: skip
    assert found.partition("\n")[0] == said


def test_kubelets_whose_versions_cannot_be_read_are_not_taken_for_compatible(
    sh: Sh, tmp_path: Path
) -> None:
    more = "kubectl() { echo 'proxyconnect tcp: refused' >&2; return 1; }"
    found = ask(sh, tmp_path, "check_turn", due="kube-apiserver", more=more)
    assert "the versions of the kubelets cannot be read: proxyconnect tcp: refused" in found


def test_kubelets_that_are_rolled_back_with_their_api_servers_are_not_waited_for(
    sh: Sh, tmp_path: Path
) -> None:
    more = f"kubectl() {{ echo 'm2|v1.22.0'; }}; {COMBINED}'"
    assert (
        ask(sh, tmp_path, "check_turn", due="kube-apiserver", installed="1.22.0", more=more) == ""
    )


def test_it_waits_for_its_rollout_slot(sh: Sh, tmp_path: Path) -> None:
    more = "slot_wait=900; sleep() { HEALTHY='192.0.2.2 192.0.2.3'; }"
    said = ask(sh, tmp_path, "check_turn; echo done", due="etcd", healthy="", more=more)
    assert said == (
        "  waiting for this host's rollout slot: etcd would lose quorum: only 0 of the 2 other members are healthy\ndone\n"
    )


@pytest.mark.parametrize(
    ("installed", "etcd", "said"),
    [
        ("1.21.0", "3.4.23", ""),
        ("1.20.2", "3.4.1", ""),
        ("", "", ""),
        ("1.18.4", "3.4.23", "build and install one minor version after another: 1.18.4, 1.19, 1.20, 1.21.3"),
        ("1.22.0", "3.4.23", "FAILURE upgrade: this host has Kubernetes 1.22.0, and this bundle has 1.21.3: the minor version cannot be downgraded"),
        ("1.21.3", "3.2.1", "build and install one minor version after another: 3.2.1, 3.3, 3.4.23"),
        ("1.21.3", "3.5.0", "FAILURE etcd-upgrade: this host has etcd 3.5.0, and this bundle has 3.4.23: the minor version cannot be downgraded"),
    ],
)  # fmt: skip
def test_an_upgrade_is_one_minor_version_at_a_time(
    sh: Sh, tmp_path: Path, installed: str, etcd: str, said: str
) -> None:
    found = ask(sh, tmp_path, "check_upgrade", installed=installed, etcd=etcd)
    assert found == "" if said == "" else said in found


NEWER_ETCD = "ETCD_VERSION=3.6.5 ETCD_STEP_FROM=3.5.26"
OLD_MEMBER = "FAILURE turn: the etcd member 192.0.2.3 has version 3.5.9: before etcd 3.6.5 every member must have 3.5.26"
SILENT_MEMBER = "FAILURE turn: the version of the etcd member 192.0.2.3 is unknown"


@pytest.mark.parametrize(
    ("versions", "etcd", "said"),
    [
        ("192.0.2.2=3.5.26 192.0.2.3=3.5.33", "3.5.26", ""),
        ("192.0.2.2=3.6.5 192.0.2.3=3.5.26", "3.5.26", ""),
        ("192.0.2.2=3.5.26 192.0.2.3=3.5.9", "3.5.26", OLD_MEMBER),
        ("192.0.2.2=3.5.26", "3.5.26", SILENT_MEMBER),
        ("192.0.2.2=3.5.26", "3.6.4", ""),  # a patch: no member needs to be of a certain one
    ],
)
def test_a_member_gets_a_new_minor_of_etcd_only_after_every_member_has_the_patch_for_it(
    sh: Sh, tmp_path: Path, versions: str, etcd: str, said: str
) -> None:
    found = ask(
        sh, tmp_path, "check_turn", due="etcd", etcd=etcd, versions=versions, more=NEWER_ETCD,
        members=list_members(*OF_THREE),
    )  # fmt: skip
    assert found.startswith(said), found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(("etcd", "is_refused"), [("3.5.9", True), ("3.5.26", False), ("3.6.1", False)])  # fmt: skip
def test_an_etcd_that_a_new_minor_cannot_follow_is_refused_with_the_version_to_install_first(
    sh: Sh, tmp_path: Path, etcd: str, is_refused: bool
) -> None:
    found = ask(sh, tmp_path, "check_upgrade", etcd=etcd, more=NEWER_ETCD)
    failure = "FAILURE etcd-upgrade: this host has etcd 3.5.9, and 3.6.5 can only follow 3.5.26"
    assert (failure in found) == is_refused
    assert ("FIX: set etcd.version to the newest 3.5, build it" in found) == is_refused


@pytest.mark.parametrize(("features", "is_refused"), [("docker flannel-etcd", True), ("docker static", False)])  # fmt: skip
def test_etcd_with_flannels_data_in_its_v2_api_does_not_go_to_a_minor_without_it(
    sh: Sh, tmp_path: Path, features: str, is_refused: bool
) -> None:
    found = ask(
        sh, tmp_path, "check_upgrade", etcd="3.5.33", more=f"{NEWER_ETCD}\n"
        f"echo \"FEATURES='{features}'\" >>{tmp_path}/root/opt/k8s/bundle/node.env",
    )  # fmt: skip
    refused = "FAILURE etcd-upgrade: flannel's subnets are in etcd's v2 API, with which 3.6.5 does not start"
    assert (refused in found) == is_refused


def test_a_rollback_may_downgrade_kubernetes_but_not_etcd(sh: Sh, tmp_path: Path) -> None:
    more = "is_generation() { true; }"
    assert ask(sh, tmp_path, "check_upgrade", installed="1.22.0", more=more) == ""
    assert "the minor version cannot be downgraded" in ask(
        sh, tmp_path, "check_upgrade", etcd="3.5.0", installed="", more=more
    )


# A stand-in for `etcdctl lock`: its files must exist, and there must be a quorum.
ETCDCTL = """
. {lib}/preflight/checks.sh
add_failure() {{ if is_skipped "$1"; then warn "$1: $2 (skipped)" 2>&1; else echo "  $1: $2" >>"$work/failures"; fi; }}
skipped='{skipped}'
exec 2>&1
command -v ask_etcd >/dev/null || ask_etcd() {{ :; }}
sleep() {{ command sleep 0.1; }}
[ "{quorum}" = yes ] || now() {{ n=$(($(cat "$work/n" 2>/dev/null || echo 0) + 6)); echo $n >"$work/n"; echo $n; }}
etcdctl() {{
    for option; do case $option in --cacert=* | --cert=* | --key=*) [ -f "${{option#*=}}" ] || {{ echo "open ${{option#*=}}"; return 1; }} ;; esac; done
    [ "{quorum}" = yes ] || {{ echo "context deadline exceeded"; return 1; }}
    ask_etcd || return 1
    echo held >"$work/slot"
}}
: >"$work/failures"
take_rollout_slot
"""
OWN_HOSTS = "e1|192.0.2.1|etcd e2|192.0.2.2|etcd e3|192.0.2.3|etcd m1|192.0.2.4|control-plane m2|192.0.2.5|control-plane"
ON_E1 = f"NODE=e1 UNITS=etcd.service NODES='{OWN_HOSTS}'"
ON_M1 = f"NODE=m1 ADDRESS=192.0.2.4 UNITS=kube-apiserver.service NODES='{OWN_HOSTS}' ETCD_VERSION= CLUSTER_ETCD_VERSION=3.5.10"
FILES = {
    "etcd": ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key"),
    "kubernetes": ("etcd-ca.crt", "apiserver-etcd-client.crt", "apiserver-etcd-client.key"),
}


def lock(sh: Sh, work: Path, host: str, *, files: str, skipped: str = "", quorum: str = "yes") -> str:  # fmt: skip
    for name in FILES[files]:
        path = work / f"root/etc/{files}/pki/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    more = ETCDCTL.format(lib=TEMPLATES / "common/lib", skipped=skipped, quorum=quorum)
    return ask(
        sh, work, "echo TAKEN", more=f"{host}\n{more}", due="etcd" if files == "etcd" else "kube-apiserver",
        healthy="192.0.2.2 192.0.2.3", versions="192.0.2.5=1.21.3 192.0.2.1=3.5.10 192.0.2.2=3.5.10 192.0.2.3=3.5.10",
    )  # fmt: skip


@pytest.mark.parametrize(("host", "files"), [(ON_E1, "etcd"), (ON_M1, "kubernetes")])
def test_the_lock_uses_the_certificates_that_the_host_has(
    sh: Sh, tmp_path: Path, host: str, files: str
) -> None:
    said = lock(sh, tmp_path, host, files=files)
    assert said.splitlines()[1:] == ["TAKEN"]


def test_without_a_quorum_there_is_no_lock_unless_the_check_is_skipped(
    sh: Sh, tmp_path: Path
) -> None:
    assert "TAKEN" not in lock(sh, tmp_path, ON_E1, files="etcd", quorum="no")
    said = lock(sh, tmp_path, ON_E1, files="etcd", quorum="no", skipped=" turn ")
    assert "warning: turn: another host holds the rollout slot, or etcd does not answer: " in said
    assert said.endswith("TAKEN\n")


def test_a_request_that_ends_is_made_again(sh: Sh, tmp_path: Path) -> None:
    """Seen: the host that held the slot restarted etcd, and install.sh waited 15 minutes for a program that had ended."""
    ends_twice = """ETCD_VERSION=3.4.23
        ask_etcd() { n=$(($(cat "$work/asked" 2>/dev/null || echo 0) + 1)); echo $n >"$work/asked"
            [ $n -gt 2 ] || { echo "transport: missing content-type field"; return 1; }; }"""
    said = lock(sh, tmp_path, f"{ON_E1}\n{ends_twice}", files="etcd")
    assert said.splitlines()[1:] == ["TAKEN"]
    assert (tmp_path / "asked").read_text() == "3\n"


@pytest.mark.parametrize(
    ("etcd", "said"),
    [
        ("192.0.2.1=3.5.10 192.0.2.2=3.5.10 192.0.2.3=3.5.10", ""),
        ("192.0.2.1=3.5.10 192.0.2.2=3.5.10 192.0.2.3=",
         "FAILURE turn: etcd on e3 does not answer, so its version is unknown, and 3.5.10 is needed: repair it, or install it, before control planes"),
        ("192.0.2.1=3.6.0 192.0.2.2=3.5.10 192.0.2.3=3.5.11", ""),
        ("192.0.2.1=3.5.10 192.0.2.2=3.5.9 192.0.2.3=3.5.9",
         "FAILURE turn: etcd on e2 has version 3.5.9, older than 3.5.10: install etcd members before control planes"),
    ],
)  # fmt: skip
def test_control_planes_wait_for_etcd_on_separate_hosts(
    sh: Sh, tmp_path: Path, etcd: str, said: str
) -> None:
    found = ask(
        sh, tmp_path, "check_turn", due="kube-apiserver", versions=f"192.0.2.5=1.21.3 {etcd}",
        more=ON_M1,
    )  # fmt: skip
    assert found.partition("\n")[0] == said
    assert ask(sh, tmp_path, "check_turn", due="kube-apiserver", versions=f"{THREE} {etcd}") == ""
