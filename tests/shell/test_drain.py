"""A worker is emptied before what runs its pods is replaced, a few at a time, by its own rights."""

from pathlib import Path

import pytest
from support.drain_api import NODES, PODS, Api
from support.shells import Sh

WHOLE = "check_drain; take_drain_turn; drain_node; echo INSTALLED; uncordon_node"


@pytest.fixture
def api(sh: Sh, tmp_path: Path) -> Api:
    return Api(sh, tmp_path)


def test_a_node_is_emptied_and_takes_pods_again(api: Api) -> None:
    code, said = api.run(WHOLE)
    assert code == 0, said
    assert said.index("no pod is left") < said.index("INSTALLED") < said.index("takes pods again")
    evictions = api.read("evictions")
    assert '"name":"web-1","namespace":"default"' in evictions
    assert '"name":"db-0"' in evictions
    assert "job-done" not in evictions + said
    assert "proxy-x" not in evictions
    assert "static" not in evictions
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (NODES, [])


def test_nothing_is_drained_where_what_runs_pods_stays(api: Api) -> None:
    code, said = api.run(f"echo /etc/other >$work/touched; {WHOLE}")
    assert (code, said, api.read("calls")) == (0, "INSTALLED\n", "")


def test_no_drain_leaves_pods_where_they_are(api: Api) -> None:
    code, said = api.run(f"drain=no; {WHOLE}")
    assert (code, said, api.read("calls")) == (0, "INSTALLED\n", "")


def test_a_pod_that_a_budget_keeps_ends_the_run_before_anything_changed(api: Api) -> None:
    api.write("stubborn", "db-0\n")
    code, said = api.run(WHOLE)
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
    ids=["before", "amid", "after"],
)  # fmt: skip
def test_a_run_that_ends_before_files_move_leaves_the_node_as_it_was(
    api: Api, moment: str, nodes: str, state: list[str]
) -> None:
    api.run(f"take_drain_turn; {moment}")
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (nodes, state)


def test_a_pod_that_nobody_would_make_anew_is_named_before(api: Api) -> None:
    api.write("pods", f"{PODS}default|alone|Running|||\n")
    assert (
        "FAILURE drain: nobody would make these pods anew elsewhere: default/alone"
        in api.run("check_drain")[1]
    )
    code, said = api.run(WHOLE, skipped=" drain ")
    assert (code, said) == (0, "INSTALLED\n")


def test_without_an_api_it_says_so(api: Api) -> None:
    api.write("down", "")
    said = api.run("check_drain")[1]
    assert "FAILURE drain: pods cannot be moved away" in said
    assert "Unable to connect" in said


@pytest.mark.parametrize(
    "plan",
    ["w1|192.0.2.11|etcd,control-plane,worker", "m1|192.0.2.1|control-plane w1|192.0.2.11|worker"],
)
def test_the_only_worker_of_the_plan_does_not_ask_the_api(api: Api, plan: str) -> None:
    api.write("down", "")
    code, said = api.run(WHOLE, plan=plan)
    assert code == 0
    assert "ADVICE drain: no other node could take this node's pods" in said
    assert said.endswith("INSTALLED\n")
    assert api.read("calls") == ""


def test_where_no_other_node_is_pods_stay(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2|true||True\nw3|||False\n")
    code, said = api.run(WHOLE)
    assert code == 0
    assert "ADVICE drain: no other node could take this node's pods" in said
    assert "evictions" not in [path.name for path in (api.directory / "api").iterdir()]


def test_the_only_other_node_is_waited_for_while_it_has_its_turn(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2|true|5|False\n")
    code, said = api.run(WHOLE)
    assert code == 3
    assert "turn: away: w2 (its turn)" in said


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("w1|||True\nw2||5|True\nw3|||True\n", "w2 (its turn)"),
        ("w1|||True\nw2|true||True\nw3|||True\n", "w2 (cordoned)"),
        ("w1|||True\nw2|||Unknown\nw3|||True\n", "w2 (not Ready)"),
        ("w1|||True\nw2|true|99999999999|True\nw3|||True\n", "w2 (its turn)"),
    ],
)
def test_another_that_is_away_comes_first(api: Api, nodes: str, reason: str) -> None:
    api.write("nodes", nodes)
    code, said = api.run(WHOLE)
    assert code == 3
    assert f"turn: away: {reason}, and only 1 may be at a time" in said
    assert (api.read("nodes"), [n for n in api.state if n != "journal"]) == (nodes, [])
    assert api.run(WHOLE, most=2)[0] == 0


def test_without_a_leading_controller_manager_it_waits(api: Api) -> None:
    api.write("no-leader", "")
    code, said = api.run(WHOLE)
    assert (code, "turn: no kube-controller-manager leads; nothing was changed" in said) == (
        3,
        True,
    )
    assert api.read("nodes") == NODES


def test_where_the_leader_may_not_be_read_it_goes_on(api: Api) -> None:
    api.write("no-lease", "")
    assert api.run(WHOLE)[0] == 0


def test_who_asked_later_and_is_not_yet_away_waits_for_this_one(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2||99999999999|True\nw3|||True\n")
    assert api.run(WHOLE)[0] == 0


def test_it_waits_for_its_turn(api: Api) -> None:
    api.write("nodes", "w1|||True\nw2|true|5|True\nw3|||True\n")
    count = "n=$(cat n 2>/dev/null); n=$((${n:-0} + 1)); echo $n >n"
    api.write("after-list", f'{count}; [ "$n" -ne 3 ] || sed -i "s/^w2|true|5|/w2|||/" nodes\n')
    code, said = api.run(WHOLE, limit=30)
    assert code == 0, said
    assert "waiting for this node's turn: away: w2 (its turn)" in said


def test_one_that_stood_before_and_was_not_seen_has_its_turn_first(api: Api) -> None:
    """Between this node's look and its cordon another asks, whose clock is behind."""
    count = "n=$(cat n 2>/dev/null); n=$((${n:-0} + 1)); echo $n >n"
    api.write("after-list", f'{count}; [ "$n" -ne 2 ] || sed -i "s/^w2|||/w2||5|/" nodes\n')
    code, said = api.run("take_drain_turn; echo INSTALLED")
    assert code == 3, said
    assert "INSTALLED" not in said
    assert api.read("nodes") == "w1|||True\nw2||5|True\nw3|||True\n"


def test_a_node_that_somebody_else_cordoned_stays_so(api: Api) -> None:
    api.write("nodes", "w1|true||True\nw2|||True\nw3|||True\n")
    code, said = api.run(WHOLE)
    assert code == 0
    assert "takes pods again" not in said
    assert api.read("nodes").startswith("w1|true||True\n")


def test_a_killed_run_is_healed_by_the_next(api: Api) -> None:
    api.run("take_drain_turn; drain_node; trap - EXIT; rm -rf $work; kill -9 $$")
    assert api.read("nodes").startswith("w1|true|")
    assert api.state == ["cordoned", "journal", "ticket"]
    code, said = api.run(WHOLE)
    assert code == 0
    assert "takes pods again" in said
    assert (api.read("nodes"), "cordoned" in api.state) == (NODES, False)
