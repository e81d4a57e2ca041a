"""A worker is drained before what runs its pods is replaced: a few at a time, with its own certificate."""

from pathlib import Path

import pytest
from support.drain_api import NODES, PODS, Api
from support.shells import Sh

COMPLETE = "check_drain; take_drain_slot; drain_node; echo INSTALLED; uncordon_node"


@pytest.fixture
def api(sh: Sh, tmp_path: Path) -> Api:
    return Api(sh, tmp_path)


def test_a_node_is_drained_and_uncordoned(api: Api) -> None:
    code, said = api.run(COMPLETE)
    assert code == 0, said
    assert (
        said.index("all pods are evicted")
        < said.index("INSTALLED")
        < said.index("w1 is uncordoned")
    )
    evictions = api.read("evictions")
    assert '"name":"web-1","namespace":"default"' in evictions
    assert '"name":"db-0"' in evictions
    assert "job-done" not in evictions + said
    assert "proxy-x" not in evictions
    assert "static" not in evictions
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (NODES, [])


def test_a_node_is_not_drained_if_what_runs_pods_is_not_replaced(api: Api) -> None:
    code, said = api.run(f"echo /etc/other >$work/touched; {COMPLETE}")
    assert (code, said, api.read("calls")) == (0, "INSTALLED\n", "")


def test_no_drain_leaves_pods_on_the_node(api: Api) -> None:
    code, said = api.run(f"drain=no; {COMPLETE}")
    assert (code, said, api.read("calls")) == (0, "INSTALLED\n", "")


def test_a_disruption_budget_that_refuses_ends_the_run_without_changes(api: Api) -> None:
    api.write("stubborn", "db-0\n")
    code, said = api.run(f"DRAIN_LIMIT=0; {COMPLETE}")
    assert code == 3
    assert "INSTALLED" not in said
    assert "default/db-0" in said
    assert "disruption budget" in said
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (NODES, [])


@pytest.mark.parametrize(
    ("moment", "nodes", "state"),
    [
        ("die 1 'no space is left'", NODES, []),
        ("echo '1 2 back' >$store/switch; die 1 'no space is left'", NODES.replace("w1|", "w1|true", 1), ["cordoned", "switch"]),
        ("exit 4", NODES.replace("w1|", "w1|true", 1), ["cordoned"]),
    ],
    ids=["before", "during", "after"],
)  # fmt: skip
def test_a_run_that_fails_before_files_are_replaced_uncordons_the_node(
    api: Api, moment: str, nodes: str, state: list[str]
) -> None:
    api.run(f"take_drain_slot; {moment}")
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (nodes, state)


def test_a_pod_without_an_owner_is_a_failure_of_the_preflight_check(api: Api) -> None:
    api.write("pods", f"{PODS}default|alone|Running|||\n")
    assert (
        "FAILURE drain: these pods have no owner that creates them again on another node: default/alone"
        in api.run("check_drain")[1]
    )
    code, said = api.run(COMPLETE, skipped=" drain ")
    assert (code, said) == (0, "INSTALLED\n")


def test_without_an_api_the_preflight_check_fails(api: Api) -> None:
    api.write("down", "")
    said = api.run("check_drain")[1]
    assert "FAILURE drain: pods cannot be evicted" in said
    assert "Unable to connect" in said


@pytest.mark.parametrize(
    "plan",
    ["w1|192.0.2.11|etcd,control-plane,worker", "m1|192.0.2.1|control-plane w1|192.0.2.11|worker"],
)
def test_the_only_planned_worker_does_not_call_the_api(api: Api, plan: str) -> None:
    api.write("down", "")
    code, said = api.run(COMPLETE, plan=plan)
    assert code == 0
    assert "ADVICE drain: no other node can take this node's pods" in said
    assert said.endswith("INSTALLED\n")
    assert api.read("calls") == ""


def test_pods_stay_if_no_other_node_is_ready(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2|true||True\nw3|||False\n")
    code, said = api.run(COMPLETE)
    assert code == 0
    assert "ADVICE drain: no other node can take this node's pods" in said
    assert "evictions" not in [path.name for path in (api.directory / "api").iterdir()]


def test_the_only_other_node_is_waited_for_while_it_has_the_rollout_slot(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2|true|5|False\n")
    code, said = api.run(COMPLETE)
    assert code == 3
    assert "turn: unavailable: w2 (has the rollout slot)" in said


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("w1|||True\nw2||5|True\nw3|||True\n", "w2 (has the rollout slot)"),
        ("w1|||True\nw2|true||True\nw3|||True\n", "w2 (cordoned)"),
        ("w1|||True\nw2|||Unknown\nw3|||True\n", "w2 (not Ready)"),
        ("w1|||True\nw2|true|99999999999|True\nw3|||True\n", "w2 (has the rollout slot)"),
    ],
)
@pytest.mark.slow
def test_a_node_that_is_unavailable_is_waited_for(api: Api, nodes: str, reason: str) -> None:
    api.write("nodes", nodes)
    code, said = api.run(COMPLETE)
    assert code == 3
    assert f"turn: unavailable: {reason}, and only 1 may be at a time" in said
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (nodes, [])
    assert api.run(COMPLETE, most=2)[0] == 0


@pytest.mark.slow
def test_it_waits_for_a_controller_manager_that_is_leader(api: Api) -> None:
    api.write("no-leader", "")
    code, said = api.run(COMPLETE)
    assert (code, "turn: kube-controller-manager has no leader; nothing was changed" in said) == (
        3,
        True,
    )
    assert api.read("nodes") == NODES


def test_the_leader_is_not_checked_if_the_control_plane_forbids_to_read_it(api: Api) -> None:
    api.write("no-lease", "Error from server (Forbidden): leases is forbidden\n")
    assert api.run(COMPLETE)[0] == 0


def test_a_leader_that_cannot_be_read_is_not_taken_for_one(api: Api) -> None:
    api.write("no-lease", "proxyconnect tcp: connection refused\n")
    code, said = api.run(COMPLETE)
    assert code == 3
    assert (
        "the leader of kube-controller-manager cannot be read: proxyconnect tcp: connection" in said
    )
    assert api.read("nodes") == NODES


def test_a_node_with_a_later_ticket_waits_for_this_node(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2||99999999999|True\nw3|||True\n")
    assert api.run(COMPLETE)[0] == 0


@pytest.mark.slow
def test_it_waits_for_its_rollout_slot(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2|true|5|True\nw3|||True\n")
    count = "n=$(cat n 2>/dev/null); n=$((${n:-0} + 1)); echo $n >n"
    api.write("after-list", f'{count}; [ "$n" -ne 3 ] || sed -i "s/^w2|true|5|/w2|||/" nodes\n')
    code, said = api.run(COMPLETE, limit=30)
    assert code == 0, said
    assert "waiting for this host's rollout slot: unavailable: w2 (has the rollout slot)" in said


def test_a_node_with_an_earlier_ticket_that_appears_late_goes_first(api: Api) -> None:
    """Between this node's check and its cordon, another node with a slow clock gets a ticket."""
    count = "n=$(cat n 2>/dev/null); n=$((${n:-0} + 1)); echo $n >n"
    api.write("after-list", f'{count}; [ "$n" -ne 2 ] || sed -i "s/^w2|||/w2||5|/" nodes\n')
    code, said = api.run("take_drain_slot; echo INSTALLED")
    assert code == 3, said
    assert "INSTALLED" not in said
    assert api.read("nodes") == "w1|||True\nw2||5|True\nw3|||True\n"


def test_a_node_that_somebody_else_cordoned_stays_cordoned(api: Api) -> None:
    api.write("nodes", "w1|true||True\nw2|||True\nw3|||True\n")
    code, said = api.run(COMPLETE)
    assert code == 0
    assert "is uncordoned" not in said
    assert api.read("nodes").startswith("w1|true||True\n")


KILL = "trap - EXIT; rm -rf $work; kill -9 $$"
HEAL = "is_drain_interrupted && end_interrupted_drain"
CORDONED = NODES.replace("w1|", "w1|true", 1)


@pytest.mark.parametrize(
    "moment", ["cordon_node() { write_line $store/cordoned now; KILL; }", "evict_pods() { KILL; }"],
    ids=["before the cordon", "amid the drain"],
)  # fmt: skip
def test_a_drain_that_was_killed_is_undone_where_nothing_else_is_to_do(
    api: Api, moment: str
) -> None:
    api.run(f"{moment.replace('KILL', KILL)}; take_drain_slot; drain_node")
    assert "cordoned" in api.state
    assert api.run(HEAL)[0] == 0
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (NODES, [])


def cordon_by_hand(api: Api) -> None:
    """An administrator: uncordon, as kubectl does, which keeps annotations, and cordon later."""
    api.write("nodes", api.read("nodes").replace("w1||", "w1|true|"))


@pytest.mark.parametrize("before", ["", "2026-11-01T00:00:00Z"])
def test_a_cordon_that_an_administrator_set_after_the_kill_stays(api: Api, before: str) -> None:
    """The script was killed between its record and its cordon; an earlier drain may have left an annotation."""
    api.run(f"cordon_node() {{ write_line $store/cordoned now; {KILL}; }}; take_drain_slot")
    api.write("cordoned", before)
    cordon_by_hand(api)
    code, said = api.run(HEAL)
    assert code == 0, said
    assert "w1 stays cordoned, because somebody else cordoned it" in said
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (CORDONED, [])


def test_an_api_that_does_not_answer_keeps_the_record_for_the_next_run(api: Api) -> None:
    api.run(f"evict_pods() {{ {KILL}; }}; take_drain_slot; drain_node")
    api.write("down", "")
    said = api.run(HEAL)[1]
    assert "w1 stays cordoned: Unable to connect to the server; run install.sh again" in said
    assert "cordoned" in api.state


@pytest.mark.slow
def test_the_next_run_completes_a_killed_one(api: Api) -> None:
    api.run("take_drain_slot; drain_node; trap - EXIT; rm -rf $work; kill -9 $$")
    assert api.read("nodes").startswith("w1|true|")
    assert api.state == ["cordoned", "journal", "ticket"]
    code, said = api.run(COMPLETE)
    assert code == 0
    assert "w1 is uncordoned" in said
    assert (api.read("nodes"), "cordoned" in api.state) == (NODES, False)


def test_only_the_planned_workers_are_read_by_name(api: Api) -> None:
    assert api.run("is_drain_due; list_nodes | sed 's/|$//'") == (0, NODES)
    assert api.read("calls").startswith("get node w1 w2 w3 --ignore-not-found ")


def test_nodes_are_listed_where_the_control_plane_is_of_an_earlier_bundle(api: Api) -> None:
    api.write("lists-only", "")
    assert api.run(COMPLETE)[0] == 0


def test_a_refusal_to_read_a_node_is_not_taken_for_its_absence(api: Api) -> None:
    kubectl = api.directory / "bin/kubectl"
    kubectl.write_text(
        kubectl.read_text().replace(
            "case $words in",
            "case $words in 'get node'*) echo 'nodes \"w2\" is forbidden' >&2; exit 1 ;; esac\ncase $words in",
            1,
        )
    )
    said = api.run("check_drain")[1]
    assert "FAILURE drain: pods cannot be evicted" in said
    assert 'nodes "w2" is forbidden' in said
