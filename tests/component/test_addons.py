"""Add-ons on a real API server: order, inventories, pruning, readiness, and several hosts that apply them."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.addon_site import (
    DEFINITION,
    INVENTORY,
    JOBS,
    LEASE,
    MAPS,
    Site,
    apply,
    config_map,
    end_job,
    exists,
    make_deployment,
    read_states,
    reset,
    start,
)
from support.external_ca_cluster import find_programs
from support.join_cluster import Build, Client, run_control_plane, wait_until
from support.shells import write_program

from bundler.cluster.components import APPLY_FLAGS

GADGET = {
    "apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "one"}, "spec": {"size": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("addons")
    site = Site(directory, find_programs(directory / "bin"))
    with run_control_plane(site.first):
        site.first.join("w1")
        yield site


@pytest.fixture(scope="module")
def admin(site: Site) -> Client:
    return Client.read(site.first.root("cp1") / "etc/kubernetes/admin.kubeconfig")


@pytest.fixture(autouse=True)
def fresh(site: Site, admin: Client) -> None:
    """No add-on, and none that any host has announced."""
    reset(site, admin)


def use_server_side_apply(build: Build) -> None:
    """As from 1.22 on: the API server of the tests has it as beta."""
    settings = build.directory / "cp1/node.env"
    lines = settings.read_text().splitlines(keepends=True)
    own = [
        f"APPLY_FLAGS='{APPLY_FLAGS['1.22']}'\n" if x.startswith("APPLY_FLAGS") else x
        for x in lines
    ]
    settings.write_text("".join(own))


def test_namespaces_definitions_and_objects_are_applied_in_order_and_once(
    site: Site, admin: Client
) -> None:
    build = site.build(web=([GADGET, config_map("a", x="1"), DEFINITION], {"namespace": "web"}))
    use_server_side_apply(build)
    said = apply(build)
    assert "add-on web: ready" in said
    assert read_states(build) == {"web": "ready "}
    found = admin.send("GET", f"{MAPS}/a").body
    assert found["data"] == {"x": "1"}
    assert {entry["manager"] for entry in found["metadata"]["managedFields"]} == {"bundler"}
    assert exists(admin, "/apis/example.com/v1/namespaces/web/gadgets/one")
    inventory = admin.send("GET", f"{INVENTORY}web").body["data"]
    assert inventory["objects"].split("\n")[:-1] == [
        "Gadget.example.com web one -", "ConfigMap web a -",
        "CustomResourceDefinition.apiextensions.k8s.io - gadgets.example.com keep",
        "Namespace - web keep",
    ]  # fmt: skip
    # once more, as after a boot: nothing is written
    version = admin.send("GET", f"{INVENTORY}web").body["metadata"]["resourceVersion"]
    admin.send("PATCH", f"{MAPS}/a", {"data": {"x": "2"}}, "merge-patch+json")
    apply(build)
    assert admin.send("GET", f"{MAPS}/a").body["data"] == {"x": "2"}
    assert admin.send("GET", f"{INVENTORY}web").body["metadata"]["resourceVersion"] == version


def test_what_left_an_add_on_is_deleted_and_an_add_on_that_left_too(
    site: Site, admin: Client
) -> None:
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }  # fmt: skip
    keys = {"namespace": "web"}
    apply(site.build(web=([config_map("a"), config_map("b"), claim], keys)))
    later = site.build(web=([config_map("a", x="3")], keys), more=([config_map("b")], keys))
    apply(later)
    assert admin.send("GET", f"{INVENTORY}web").body["data"]["state"] == "ready"
    assert exists(admin, f"{MAPS}/b")  # it moved
    assert admin.send("GET", f"{MAPS}/a").body["data"] == {"x": "3"}
    none = site.build()
    said = apply(none)
    assert "add-on web: deleted, because it is not in cluster.yaml any more" in said
    assert [exists(admin, f"{MAPS}/{name}") for name in "ab"] == [False, False]
    assert exists(admin, "/api/v1/namespaces/web")
    assert exists(admin, "/api/v1/namespaces/web/persistentvolumeclaims/data")
    assert not exists(admin, f"{INVENTORY}web")


@pytest.mark.parametrize("rest", [[], [config_map("b")]], ids=["the-add-on-left", "it-stays"])
def test_an_object_that_kube_apply_applies_now_stays(
    site: Site, admin: Client, rest: list[dict[str, Any]]
) -> None:
    keys = {"namespace": "web"}
    moved = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"},
        "spec": {"podSelector": {}},
    }  # fmt: skip
    apply(site.build(web=([moved, config_map("b"), config_map("c")], keys)))
    later = site.build(**({"web": (rest, keys)} if rest else {}))
    moved = {**moved, "metadata": {"name": "a", "namespace": "web"}}
    manifest = later.root("cp1") / "etc/kubernetes/addons/moved.yaml"
    manifest.write_text(yaml.safe_dump(moved))
    said = apply(later, user="yes")
    assert exists(admin, "/apis/networking.k8s.io/v1/namespaces/web/networkpolicies/a"), said
    assert not exists(admin, f"{MAPS}/c")
    assert exists(admin, f"{MAPS}/b") is bool(rest)


def test_manifests_that_cannot_be_read_delete_nothing(site: Site, admin: Client) -> None:
    keys = {"namespace": "web"}
    apply(site.build(web=([config_map("a"), config_map("b")], keys)))
    later = site.build(web=([config_map("a")], keys))
    manifest = later.root("cp1") / "etc/kubernetes/addons/broken.yaml"
    manifest.write_text("kind: [\n")
    said = apply(later, code=3)
    assert "cannot read" in said
    assert exists(admin, f"{MAPS}/b")
    manifest.unlink()
    apply(later)
    assert not exists(admin, f"{MAPS}/b")


def test_an_add_on_waits_for_those_that_it_needs_and_says_why_it_is_not_ready(
    site: Site, admin: Client
) -> None:
    keys = {"namespace": "web", "wait": {"timeout": "1s"}}
    build = site.build(
        base=([make_deployment("base")], keys),
        top=([config_map("top")], {**keys, "needs": ["base"]}),
    )
    apply(build, code=3)
    time.sleep(1)
    site.first.register("w1")
    apply(build, code=3)
    states = read_states(build)
    assert states["base"].startswith("failed Deployment web/base: ")
    assert states["top"] == "waiting it needs base"
    assert not exists(admin, f"{MAPS}/top")
    finish(site, admin, "base")
    apply(build)
    assert read_states(build) == {"base": "ready ", "top": "ready "}
    assert exists(admin, f"{MAPS}/top")


@pytest.mark.long
def test_a_host_without_the_image_is_named_and_nothing_has_failed(
    site: Site, admin: Client
) -> None:
    """The pods of a new version, before the bundle of their worker is installed."""
    build = site.build(
        web=([make_deployment("web")], {"namespace": "web", "wait": {"timeout": "1s"}})
    )
    apply(build, code=3)
    pods = "/api/v1/namespaces/web/pods"
    wait_until("the pod exists", lambda: admin.send("GET", f"{pods}?labelSelector=app=web").items)
    (pod,) = admin.send("GET", f"{pods}?labelSelector=app=web").items
    path = f"{pods}/{pod['metadata']['name']}"
    target = {"metadata": pod["metadata"], "target": {"kind": "Node", "name": "w1"}}
    admin.send("POST", f"{path}/binding", {"apiVersion": "v1", "kind": "Binding", **target})
    container = {
        "name": "web", "image": "nginx:1.27", "imageID": "", "ready": False, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off\tpulling"}},
    }  # fmt: skip
    status = {"status": {"containerStatuses": [container]}}
    assert admin.send("PATCH", f"{path}/status", status, "strategic-merge-patch+json").status == 200
    time.sleep(1)
    site.first.register("w1")
    apply(build, code=3)
    assert read_states(build) == {
        "web": "waiting w1 does not have the image nginx:1.27: install its bundle"
    }


@pytest.mark.long
def test_a_job_is_waited_for_and_made_again_when_it_changes(site: Site, admin: Client) -> None:
    def make(command: str) -> Build:
        container = {"name": "a", "image": "nginx:1.27", "command": [command]}
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": spec}
        return site.build(web=([job], {"namespace": "web"}))

    def finish_job() -> str:
        path = "/apis/batch/v1/namespaces/web/jobs/a"
        complete = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        answer = admin.send("PATCH", f"{path}/status", complete, "merge-patch+json")
        assert answer.status == 200, answer
        uid: str = answer.body["metadata"]["uid"]
        return uid

    first, second = make("one"), make("two")
    apply(first, code=3)
    former = finish_job()
    apply(first)
    apply(second, code=3)
    assert finish_job() != former
    apply(second)
    assert read_states(second) == {"web": "ready "}


def finish(site: Site, admin: Client, name: str) -> None:
    """What a scheduler and a kubelet do with the pods of a Deployment."""
    site.first.register("w1")
    pods = "/api/v1/namespaces/web/pods"
    chosen = f"{pods}?labelSelector=app={name}"
    wait_until("its pods are made", lambda: admin.send("GET", chosen).items)
    for pod in admin.send("GET", chosen).items:
        path = f"{pods}/{pod['metadata']['name']}"
        target = {"metadata": pod["metadata"], "target": {"kind": "Node", "name": "w1"}}
        admin.send("POST", f"{path}/binding", {"apiVersion": "v1", "kind": "Binding", **target})
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        status = {"status": {"phase": "Running", "conditions": ready}}
        answer = admin.send("PATCH", f"{path}/status", status, "strategic-merge-patch+json")
        assert answer.status == 200, answer


def test_an_object_that_the_api_refuses_is_named(site: Site, admin: Client) -> None:
    wrong = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "wrong"},
        "spec": {"ports": [{"port": 99999}]},
    }  # fmt: skip
    build = site.build(web=([wrong], {"namespace": "web", "wait": {"timeout": "1s"}}))
    apply(build, code=3)
    time.sleep(1)
    apply(build, code=3)
    assert read_states(build)["web"].startswith("failed ")
    assert "must be between 1 and 65535" in read_states(build)["web"]
    build = site.build(web=([config_map("a")], {"namespace": "web"}))
    apply(build)
    assert not exists(admin, "/api/v1/namespaces/web/services/wrong")


def test_during_a_rollout_the_add_ons_that_were_installed_last_count(
    site: Site, admin: Client
) -> None:
    """Two hosts: one with the first build, one with a later one."""
    early = site.build(web=([config_map("a", x="1")], {"namespace": "web"}))
    apply(early)
    later = site.build(web=([config_map("a", x="2")], {"namespace": "web"}))
    apply(later)
    for _ in range(2):  # also after a boot
        assert "another control plane has later add-ons" in apply(early)
        assert admin.send("GET", f"{MAPS}/a").body["data"] == {"x": "2"}


def test_another_host_takes_over_from_one_that_was_killed_amid_it(
    site: Site, admin: Client, tmp_path: Path
) -> None:
    build = site.build(web=([config_map(name) for name in "abc"], {"namespace": "web"}))
    real = site.builder.programs / "kubectl"
    write_program(
        tmp_path / "kubectl",
        f'case " $* " in *" apply "*1-namespaces*) {real} "$@"; kill -9 0 ;; esac\nexec {real} "$@"\n',
    )
    environment = build.environment("cp1")
    killed = start(build, PATH=f"{tmp_path}:{environment['PATH']}")
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert admin.send("GET", LEASE).body["spec"]["holderIdentity"] == "cp1"
    other = shutil.copytree(build.directory, build.directory.with_name("other"), symlinks=True)
    settings = other / "cp1/node.env"
    settings.write_text(settings.read_text().replace("NODE='cp1'", "NODE='cp2'"))
    (other / "cp1/rootfs/opt/k8s/bundle").unlink()
    (other / "cp1/rootfs/opt/k8s/bundle").symlink_to(other / "cp1")
    said = apply(Build(other, build.network, build.programs), PATIENCE="3", INTERVAL="1")
    assert "taking over from cp1, which has not renewed the Lease for 3 s" in said
    assert all(exists(admin, f"{MAPS}/{name}") for name in "abc")
    assert not admin.send("GET", LEASE).body["spec"].get("holderIdentity")


def test_verify_shows_states_and_what_somebody_changed(site: Site, admin: Client) -> None:
    build = site.build(web=([config_map("a", x="1"), config_map("b")], {"namespace": "web"}))
    apply(build)
    assert verify(build) == "ok 1 add-ons, no drift"
    admin.send("PATCH", f"{MAPS}/a", {"data": {"x": "2"}}, "merge-patch+json")
    admin.send("DELETE", f"{MAPS}/b")
    assert (
        verify(build)
        == "FAILED web: v1.ConfigMap.web.a is changed; web: v1.ConfigMap.web.b is missing"
    )


def test_what_somebody_changed_is_applied_again_with_reconcile(site: Site, admin: Client) -> None:
    keys = {"namespace": "web", "reconcile": True}
    build = site.build(
        web=([config_map("a", x="1"), config_map("b")], keys),
        kept=([config_map("c", x="1")], {"namespace": "web"}),
    )
    process = start(build, INTERVAL="1", RECONCILE_EVERY="2")
    try:
        state = build.root("cp1") / "run/kube-addons/state"
        wait_until("it has looked once", state.exists)
        ready = {"web": "ready ", "kept": "ready "}
        wait_until("both are ready", lambda: read_states(build) == ready)
        for name in "ac":
            admin.send("PATCH", f"{MAPS}/{name}", {"data": {"x": "2"}}, "merge-patch+json")
        admin.send("DELETE", f"{MAPS}/b")
        wait_until("it is there again", lambda: exists(admin, f"{MAPS}/b"))
        assert process.poll() is None
    finally:
        process.terminate()
        said, _ = process.communicate()
    assert admin.send("GET", f"{MAPS}/a").body["data"] == {"x": "1"}
    assert admin.send("GET", f"{MAPS}/c").body["data"] == {"x": "2"}
    assert "add-on web: v1.ConfigMap.web.a is changed: applying it again" in said
    assert "add-on web: v1.ConfigMap.web.b is missing: applying it again" in said
    assert said.count("applying it again") == 2


@pytest.mark.long
def test_reconcile_runs_no_job_again(site: Site, admin: Client) -> None:
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "nginx:1.27"}],
        }}},
    }  # fmt: skip
    build = site.build(web=([job, config_map("a", x="1")], {"namespace": "web", "reconcile": True}))
    site.first.register("w1")
    apply(build, code=3)
    end_job(admin, "once")
    apply(build, once=True)
    admin.send("DELETE", f"{JOBS}/once?propagationPolicy=Background")
    admin.send("PATCH", f"{MAPS}/a", {"data": {"x": "2"}}, "merge-patch+json")
    said = apply(build, once=True)  # a new process begins a new round
    assert "add-on web: v1.ConfigMap.web.a is changed: applying it again" in said
    assert not exists(admin, f"{JOBS}/once")


def verify(build: Build) -> str:
    """The verdict of verify.sh's check, and what it saw."""
    done = subprocess.run(
        ["sh", build.directory / "cp1/verify.sh", "--only", "addons", "--timeout", "1"],
        env=build.environment("cp1"), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    line = next((line for line in done.stderr.splitlines() if " addons " in line), done.stderr)
    verdict, _, _, _, seen = line.split(maxsplit=4)
    return f"{verdict} {seen}"


@pytest.mark.long
def test_a_host_waits_while_another_one_applies(site: Site, admin: Client) -> None:
    build = site.build(web=([config_map("a")], {"namespace": "web"}))
    spec = {"holderIdentity": "cp9", "renewTime": "2026-12-01T00:00:00.000000Z"}
    admin.send("PATCH", LEASE, {"spec": spec}, "merge-patch+json")
    apply(build, code=3)
    assert read_states(build) == {"web": "applying cp9 applies the add-ons"}
    assert not exists(admin, f"{MAPS}/a")
    admin.send("PATCH", LEASE, {"spec": {"holderIdentity": None}}, "merge-patch+json")
    apply(build)
    assert exists(admin, f"{MAPS}/a")


def hook(name: str, events: str, command: str = "one", **more: str) -> dict[str, Any]:
    """A Job that Helm's annotations make a hook."""
    container = {"name": "a", "image": "nginx:1.27", "command": [command]}
    annotations = {
        "helm.sh/hook": events, **{f"helm.sh/hook-{k}": v for k, v in more.items()},
    }  # fmt: skip
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "annotations": annotations},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }  # fmt: skip


def read_record(admin: Client, name: str = "web") -> str:
    record: str = admin.send("GET", f"{INVENTORY}{name}").body["data"]["hooks"]
    return record


HOOKED = (
    hook("second", "pre-install,pre-upgrade", weight="5"),
    hook("first", "pre-install", weight="-5", **{"delete-policy": "hook-succeeded"}),
    hook("last", "post-install,post-upgrade"),
)


def test_hooks_run_by_weight_before_and_after_the_objects_and_upgrades_have_their_own(
    site: Site, admin: Client
) -> None:
    keys = {"namespace": "web"}
    build = site.build(web=([config_map("a", x="1"), *HOOKED], keys))
    site.first.register("w1")
    apply(build, code=3)
    assert read_record(admin).split()[1:] == ["pre-install", "001.yaml", "made"]
    assert [exists(admin, f"{JOBS}/{n}") for n in ("first", "second")] == [True, False]
    assert not exists(admin, f"{MAPS}/a")
    end_job(admin, "first")
    apply(build, code=3)
    assert not exists(admin, f"{JOBS}/first")  # hook-succeeded
    assert exists(admin, f"{JOBS}/second")
    assert not exists(admin, f"{MAPS}/a")
    earlier = end_job(admin, "second")
    apply(build, code=3)
    assert exists(admin, f"{MAPS}/a")
    assert read_record(admin).split()[1:] == ["post-install", "002.yaml", "made"]
    end_job(admin, "last")
    said = apply(build)
    assert "add-on web: hook post-install Job web/last: done" in said
    assert read_record(admin) == ""
    apply(build)  # as after a boot
    assert end_job(admin, "second") == earlier
    later = site.build(web=([config_map("a", x="2"), *HOOKED], keys))
    apply(later, code=3)
    assert not exists(admin, f"{JOBS}/first")
    assert end_job(admin, "second") != earlier  # once for the change
    apply(later, code=3)
    assert admin.send("GET", f"{MAPS}/a").body["data"] == {"x": "2"}
    end_job(admin, "last")
    apply(later)
    assert read_states(later) == {"web": "ready "}
    apply(site.build(web=([config_map("a", x="2")], keys)))  # hooks that left are deleted
    assert [exists(admin, f"{JOBS}/{n}") for n in ("second", "last")] == [False, False]


@pytest.mark.long
def test_a_hook_that_was_made_just_before_a_kill_does_not_run_twice(
    site: Site, admin: Client, tmp_path: Path
) -> None:
    build = site.build(web=([config_map("a"), hook("one", "pre-install")], {"namespace": "web"}))
    site.first.register("w1")
    real = site.builder.programs / "kubectl"
    write_program(
        tmp_path / "kubectl",
        f'case " $* " in *" apply "*hooks/001*) {real} "$@"; kill -9 0 ;; esac\nexec {real} "$@"\n',
    )
    killed = start(build, PATH=f"{tmp_path}:{build.environment('cp1')['PATH']}")
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert read_record(admin).endswith(" pre-install 001.yaml cleared")
    made = admin.send("GET", f"{JOBS}/one").body["metadata"]["uid"]
    apply(build, code=3)
    assert end_job(admin, "one") == made
    apply(build)
    assert exists(admin, f"{MAPS}/a")


@pytest.mark.long
def test_a_hook_that_fails_is_named_and_runs_again_after_a_while(site: Site, admin: Client) -> None:
    build = site.build(web=([config_map("a"), hook("one", "pre-install")], {"namespace": "web"}))
    apply(build, code=3)
    site.first.register("w1")
    failed = end_job(admin, "one", "Failed")
    apply(build, code=3, PAUSE="300")
    wanted = "failed hook pre-install Job web/one: failed: backoff limit reached"
    assert read_states(build) == {"web": wanted}
    assert not exists(admin, f"{MAPS}/a")
    apply(build, code=3, PAUSE="0")  # the time is over
    apply(build, code=3, PAUSE="300")
    assert end_job(admin, "one") != failed
    apply(build)
    assert read_states(build) == {"web": "ready "}


@pytest.mark.long
def test_what_the_chart_wants_to_keep_stays_even_with_prune_all(site: Site, admin: Client) -> None:
    keys = {"namespace": "web", "prune": "all"}
    kept = config_map("kept")
    kept["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    apply(site.build(web=([kept, config_map("a")], keys)))
    apply(site.build(web=([config_map("b")], keys)))
    assert [exists(admin, f"{MAPS}/{n}") for n in ("kept", "a", "b")] == [True, False, True]
