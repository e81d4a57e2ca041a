"""`bundler plan`: the steps from one build to another, by the rules of install.sh."""

import itertools
import re
from pathlib import Path

import pytest
from support.bundles import write_bundle
from support.command import run_bundler
from support.json_shapes import read_shape
from support.small_builds import SmallSite, make_site

from bundler.bundle.layout import Media
from bundler.catalog import default_version
from bundler.cluster.components import ETCD_STEPS, MINORS, key_of, minor_of, row_for
from bundler.cluster.node_labels import NODE_LABELS
from bundler.errors import ConfigError
from bundler.render.site_files import SITE_FILES
from bundler.upgrade.rollout import HostStep, UpgradePlan, make_upgrade_plan


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    made = make_site(tmp_path_factory.mktemp("site"))
    made.build("first")
    return made


def rebuild(site: SmallSite, name: str, *changes: tuple[str, str]) -> Path:
    description = site.directory / "cluster.yaml"
    text = description.read_text()
    for old, new in changes:
        assert old in text
        description.write_text(description.read_text().replace(old, new))
    try:
        return site.build(name)
    finally:
        description.write_text(text)


def host_of(rollout: UpgradePlan, name: str) -> HostStep:
    return next(host for stage in rollout.stages for host in stage.hosts if host.name == name)


@pytest.mark.slow
def test_the_same_build_changes_nothing(site: SmallSite) -> None:
    rollout = make_upgrade_plan(site.directory / "first", site.directory / "first")
    assert {host.kind for stage in rollout.stages for host in stage.hosts} == {"nothing"}
    done = run_bundler(
        ["plan", site.directory / "first", site.directory / "first"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "cluster small: nothing changes on all 3 hosts\n"


def test_control_planes_come_before_workers(site: SmallSite) -> None:
    rollout = make_upgrade_plan(site.directory / "first", site.directory / "first")
    assert [[host.name for host in stage.hosts] for stage in rollout.stages] == [
        ["one"],
        ["three", "two"],
    ]


def test_dedicated_etcd_hosts_come_before_control_planes(tmp_path: Path) -> None:
    roles = {
        "a": "control-plane", "b": "etcd", "c": "etcd load-balancer", "d": "worker",
        "e": "etcd control-plane", "f": "etcd worker", "g": "worker load-balancer",
        "Z": "control-plane worker",
    }  # fmt: skip
    for name, held in roles.items():
        env = f"NODE='{name}'\nCLUSTER='lab'\nROLES='{held}'\n"
        write_bundle(tmp_path / f"dist/lab-{name}.tar.gz", {}, env=env)
    stages = make_upgrade_plan(tmp_path / "dist", tmp_path / "dist").stages
    assert [(stage.title, "".join(host.name for host in stage.hosts)) for stage in stages] == [
        ("etcd members", "bc"),
        ("Control planes", "aeZ"),
        ("Workers", "dfg"),
    ]


def test_a_setting_restarts_the_units_that_read_it(site: SmallSite) -> None:
    extra = (
        "dns: {provider: none}",
        "dns: {provider: none}\nextra: {kubelet: {config: {maxPods: 99}}}",
    )
    rollout = make_upgrade_plan(site.directory / "first", rebuild(site, "pods", extra))
    host = host_of(rollout, "two")
    (restart,) = host.restarts
    assert (restart.unit, restart.because) == (
        "kubelet.service",
        ("/etc/kubernetes/kubelet-config.yaml",),
    )
    assert restart.interruption == "up to 20 s: pods keep running; none is started or stopped"
    assert (host.is_drained, host.one_way, host.versions) == (False, "", ())


@pytest.mark.slow
def test_another_kubelet_drains_its_node(site: SmallSite) -> None:
    newer = ("version: 1.36.2", "version: 1.36.3")
    pins = site.directory / "pins.yaml"
    kept = pins.read_text()
    try:
        dist = rebuild_with_pins(site, "patch", newer)
    finally:
        pins.write_text(kept)
    host = host_of(make_upgrade_plan(site.directory / "first", dist), "two")
    assert host.versions == ("Kubernetes 1.36.2 → 1.36.3",)
    assert host.is_drained
    assert {"kubelet.service", "kube-proxy.service"} <= {r.unit for r in host.restarts}


def rebuild_with_pins(site: SmallSite, name: str, *changes: tuple[str, str]) -> Path:
    site.change("kubernetes-server")
    return rebuild(site, name, *changes)


def test_another_container_runtime_drains_the_node(tmp_path: Path) -> None:
    units = "NODE='one'\nCLUSTER='lab'\nROLES='worker'\nUNITS='{0}.service kubelet.service'\n"
    unit = "[Service]\n[X-Bundler]\nRestartOn=/x\nDrainOn=/etc/systemd/system/{0}.service\n"
    for directory, name in (("a", "docker"), ("b", "containerd")):
        write_bundle(
            tmp_path / directory / "lab-one.tar.gz",
            {
                f"rootfs/etc/systemd/system/{each}.service": (0o644, unit.format(each).encode())
                for each in (name, "kubelet")
            },
            env=units.format(name),
        )
    host = host_of(make_upgrade_plan(tmp_path / "a", tmp_path / "b"), "one")
    assert (host.stopped, host.started) == (("docker.service",), ("containerd.service",))
    assert (host.restarts, host.is_drained) == ((), True)


def write_kubelet(directory: Path, config: str, flags: str = "") -> None:
    unit = f"ExecStart=/opt/k8s/bin/kubelet \\\n  --root-dir=/data/kubelet \\\n  {flags}\n[X-Bundler]\n"
    write_bundle(
        directory / "lab-one.tar.gz",
        {
            "rootfs/etc/systemd/system/kubelet.service": (0o644, unit.encode()),
            "rootfs/etc/kubernetes/kubelet-config.yaml": (0o644, f"{config}\n".encode()),
        },
        env="NODE='one'\nCLUSTER='lab'\nROLES='worker'\nUNITS='kubelet.service'\n",
    )


@pytest.mark.parametrize(
    ("old", "new", "flags", "changed", "files"),
    [
        ("a: b", "{cpuManagerPolicy: static, reservedSystemCPUs: '0'}", "", "cpuManagerPolicy: the default → static", "cpu_manager_state"),
        ("cpuManagerPolicy: static", "cpuManagerPolicy: none", "", "cpuManagerPolicy: static → none", "cpu_manager_state"),
        ("a: b", "a: b", "--cpu-manager-policy=static", "cpuManagerPolicy: the default → static", "cpu_manager_state"),
        ("{cpuManagerPolicy: static, kubeReserved: {cpu: 1}}", "{cpuManagerPolicy: static, kubeReserved: {cpu: 2}}", "", "kubeReserved.cpu: 1 → 2", "cpu_manager_state"),
        ("a: b", "memoryManagerPolicy: Static", "", "memoryManagerPolicy: the default → Static", "memory_manager_state"),
        ("a: b", "topologyManagerPolicy: restricted", "", "topologyManagerPolicy: the default → restricted", ""),
        ("a: b", "maxPods: 5", "", "", ""),
        ("cpuManagerPolicy: none", "kubeReserved: {cpu: 2}", "", "", ""),
    ],
)  # fmt: skip
def test_a_plan_names_the_drain_and_the_state_file_of_a_resource_manager(
    tmp_path: Path, old: str, new: str, flags: str, changed: str, files: str
) -> None:
    """kubespray 8535, talos 7504: the kubelet does not start with the state of another policy."""
    write_kubelet(tmp_path / "a", old)
    write_kubelet(tmp_path / "b", new, flags)
    command = ["plan", tmp_path / "a", tmp_path / "b"]
    shown = run_bundler(command, capture_output=True, text=True, check=True).stdout
    assert (changed in shown) is ("by hand" in shown) or not changed
    assert ("kubectl drain one --ignore-daemonsets" in shown) is bool(changed)
    removal = f"on one: systemctl stop kubelet && rm -f /data/kubelet/{files}; then ./install.sh"
    assert (removal in shown) is bool(files)
    assert ("_manager_state" in shown) is bool(files)


@pytest.mark.slow
def test_hosts_are_added_and_removed(site: SmallSite) -> None:
    fewer = ("  - {name: three, address: 192.0.2.3, roles: [worker]}\n", "")
    dist = rebuild(site, "fewer", fewer)
    less = make_upgrade_plan(site.directory / "first", dist)
    assert [host.name for host in less.leaving] == ["three"]
    more = make_upgrade_plan(dist, site.directory / "first")
    assert host_of(more, "three").kind == "install"
    done = run_bundler(
        ["plan", site.directory / "first", dist],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "three (192.0.2.3): /opt/k8s/bundle/uninstall.sh --leave" in done.stdout


def test_json_has_the_same_plan(site: SmallSite) -> None:
    command = ["plan", "--json", site.directory / "first", site.directory / "first"]
    done = run_bundler(command, capture_output=True, text=True, check=True)
    assert read_shape(done.stdout, "plan")["stages"][0]["hosts"][0]["name"] == "one"


def test_a_delta_can_be_planned(site: SmallSite) -> None:
    extra = (
        "dns: {provider: none}",
        "dns: {provider: none}\nextra: {kubelet: {config: {maxPods: 98}}}",
    )
    description = site.directory / "cluster.yaml"
    text = description.read_text()
    description.write_text(text.replace(*extra))
    try:
        dist = site.build("delta", media=Media(since=(str(site.directory / "first"),)))
    finally:
        description.write_text(text)
    host = host_of(make_upgrade_plan(site.directory / "first", dist), "two")
    assert [restart.unit for restart in host.restarts] == ["kubelet.service"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "1.36.2",
            "1.38.0",
            "1.36.2 to 1.38.0 skips a minor; build and install these one after another: 1.37, 1.38.0",
        ),
        ("1.36.2", "1.35.9", "1.36.2 to 1.35.9: a downgrade to an earlier minor is not supported"),
    ],
)
def test_minors_are_upgraded_one_by_one(tmp_path: Path, old: str, new: str, said: str) -> None:
    env = "NODE='one'\nCLUSTER='lab'\nROLES='worker'\nKUBERNETES_VERSION='{}'\n"
    write_bundle(tmp_path / "a/lab-one.tar.gz", {}, env=env.format(old))
    write_bundle(tmp_path / "b/lab-one.tar.gz", {}, env=env.format(new))
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        make_upgrade_plan(tmp_path / "a", tmp_path / "b")


def test_a_minor_of_etcd_is_reported_as_one_way(tmp_path: Path) -> None:
    env = "NODE='one'\nCLUSTER='lab'\nROLES='etcd'\nETCD_VERSION='{}'\n"
    write_bundle(tmp_path / "a/lab-one.tar.gz", {}, env=env.format("3.4.23"))
    write_bundle(tmp_path / "b/lab-one.tar.gz", {}, env=env.format("3.5.1"))
    host = host_of(make_upgrade_plan(tmp_path / "a", tmp_path / "b"), "one")
    assert host.one_way.startswith("etcd 3.5.1 converts its data, which 3.4.23 cannot read")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("3.5.9", "3.6.5", "etcd 3.5.9 to 3.6.5: etcd 3.6 can only follow 3.5.26 or later; set etcd.version to 3.5."),
        ("3.5.25", "3.6.14", "can only follow 3.5.26"),
        ("3.5.26", "3.6.5", ""),
        ("3.5.33", "3.6.0", ""),
        ("3.6.10", "3.7.0", "can only follow 3.6.11 or later; set etcd.version to 3.6.1"),
        ("3.6.11", "3.7.0", ""),
        ("3.4.3", "3.5.0", ""),
        ("3.5.9", "3.5.10", ""),
        ("3.4.23", "3.6.5", "skips a minor"),
    ],
)  # fmt: skip
def test_a_minor_of_etcd_follows_only_the_patches_that_it_can_follow(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    env = "NODE='one'\nCLUSTER='lab'\nROLES='etcd'\nETCD_VERSION='{}'\n"
    write_bundle(tmp_path / "a/lab-one.tar.gz", {}, env=env.format(old))
    write_bundle(tmp_path / "b/lab-one.tar.gz", {}, env=env.format(new))
    if said:
        with pytest.raises(ConfigError, match=re.escape(said)):
            make_upgrade_plan(tmp_path / "a", tmp_path / "b")
    else:
        host = host_of(make_upgrade_plan(tmp_path / "a", tmp_path / "b"), "one")
        assert host.versions == (f"etcd {old} → {new}",)


def test_etcd_with_flannels_data_does_not_go_to_a_minor_without_the_v2_api(
    tmp_path: Path,
) -> None:
    env = "NODE='one'\nCLUSTER='lab'\nROLES='etcd'\nETCD_VERSION='{}'\nFEATURES='{}'\n"
    old = env.format("3.5.33", "docker flannel-etcd")
    write_bundle(tmp_path / "a/lab-one.tar.gz", {}, env=old)
    write_bundle(tmp_path / "b/lab-one.tar.gz", {}, env=env.format("3.6.5", "containerd"))
    with pytest.raises(ConfigError, match=r"3.6.5 does not start with such data"):
        make_upgrade_plan(tmp_path / "a", tmp_path / "b")


def test_bundles_of_two_clusters_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        env = f"NODE='one'\nCLUSTER='{name}'\nROLES='etcd'\n"
        write_bundle(tmp_path / name / "lab-one.tar.gz", {}, env=env)
    with pytest.raises(ConfigError, match=r"belong to 2 clusters \(a, b\)"):
        make_upgrade_plan(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(("old", "new"), [*itertools.pairwise(MINORS)])
def test_the_default_etcd_of_a_minor_can_follow_that_of_the_minor_before(
    old: str, new: str
) -> None:
    before, after = default_version("etcd", old), default_version("etcd", new)
    oldest = row_for(ETCD_STEPS, minor_of(after))
    assert minor_of(before) == minor_of(after) or not oldest or key_of(before) >= key_of(oldest)


ROWS = """\
# comment
w1\tnode\t-\t-\t-
w1\tlabel\track\t4\t"4"
w1\tannotation\towner\tteam+a\t"team a"
w1\ttaint\tgpu:NoSchedule\t-\t""
"""


def test_labels_and_taints_of_nodes_are_named_once(tmp_path: Path) -> None:
    later = ROWS.replace("rack\t4", "rack\t5").replace("gpu:NoSchedule", "gpu:NoExecute")
    for build, rows in (("old", ROWS), ("new", later.replace("team+a", "team+b"))):
        for name in ("a", "b"):
            env = f"NODE='{name}'\nCLUSTER='lab'\nROLES='control-plane'\n"
            files = {NODE_LABELS: (0o644, rows.encode())}
            write_bundle(tmp_path / build / f"lab-{name}.tar.gz", files, env=env)
    rollout = make_upgrade_plan(tmp_path / "old", tmp_path / "new")
    assert rollout.node_labels == (
        "w1: label rack = 5 is set",
        "w1: annotation owner is set",
        "w1: taint gpu:NoSchedule is removed",
        "w1: taint gpu:NoExecute is set",
    )
    command = ["plan", tmp_path / "old", tmp_path / "new"]
    done = run_bundler(command, capture_output=True, text=True, check=True)
    assert "Nodes: the first control plane that is installed changes these" in done.stdout
    assert "  w1: label rack = 5 is set" in done.stdout
    done = run_bundler(["diff", tmp_path / "old", tmp_path / "new"], capture_output=True, text=True)
    assert "  node labels\n    ~ w1: label rack: 4 → 5\n" in done.stdout
    assert "    ~ w1: annotation owner: team a → team b\n" in done.stdout
    assert "    - w1: taint gpu:NoSchedule\n    + w1: taint gpu:NoExecute\n" in done.stdout


SITE_ROWS = """\
# PATH OWNER RESTART RELOAD
/etc/site/a\troot:root\tchrony.service kubelet.service\tagent.service
/etc/site/gone\troot:root\told.service\t-
/etc/site/same\troot:root\tnever.service\t-
"""


def test_files_of_the_site_restart_the_units_that_they_name(tmp_path: Path) -> None:
    env = "NODE='a'\nCLUSTER='lab'\nROLES='worker'\nUNITS='kubelet.service'\n"
    unit = (
        b"[X-Bundler]\nRestartOn=/opt/k8s/bin/kubelet\nInterruption=up to 20 s: pods keep running\n"
    )
    common = {
        "rootfs/etc/systemd/system/kubelet.service": (0o644, unit),
        "rootfs/etc/site/same": (0o644, b"same"),
    }
    later = "\n".join(row for row in SITE_ROWS.splitlines() if "gone" not in row) + "\n"
    for build, rows, content in (("old", SITE_ROWS, b"1"), ("new", later, b"2")):
        files = {
            **common,
            SITE_FILES: (0o644, rows.encode()),
            "rootfs/etc/site/a": (0o644, content),
        }
        if build == "old":
            files["rootfs/etc/site/gone"] = (0o600, b"secret")
        write_bundle(tmp_path / build / "lab-a.tar.gz", files, env=env)
    step = host_of(make_upgrade_plan(tmp_path / "old", tmp_path / "new"), "a")
    assert [(one.unit, one.because, one.interruption) for one in step.restarts] == [
        ("kubelet.service", ("/etc/site/a",), "up to 20 s: pods keep running"),
        ("chrony.service", ("/etc/site/a",), "a unit of the host"),
        ("old.service", ("/etc/site/gone",), "a unit of the host"),
        ("agent.service", ("/etc/site/a",), "a unit of the host, which is reloaded"),
    ]
    done = run_bundler(
        ["diff", "--text", tmp_path / "old", tmp_path / "new"], capture_output=True, text=True
    )
    assert "- rootfs/etc/site/gone: 0600, secret" in done.stdout
    assert "~ rootfs/etc/site/a" in done.stdout
