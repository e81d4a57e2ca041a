"""Users of units: their ids, what they may read, and their sandboxes."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cis_hosts import load_plan
from support.unit_files import read_unit

from bundler.catalog import read_table
from bundler.cluster.cis import OLDEST
from bundler.cluster.components import MINORS, UNITS
from bundler.cluster.loader import load_cluster
from bundler.cluster.planned_addons import ORDER, PlannedAddon, PlannedHook
from bundler.cluster.schema import Role
from bundler.cluster.service_users import (
    is_given,
    list_default_users,
    list_sandbox,
    list_unit_files,
    user_of,
)
from bundler.cluster.settings import list_flags
from bundler.errors import ConfigError
from bundler.overlays.files import RENDERED, list_files
from bundler.overlays.templating import render_template
from bundler.paths import templates_directory
from bundler.render.addons import make_addon_files
from bundler.render.context import make_context

SYSTEMD = shutil.which("systemd-analyze")
SPLIT = re.compile(r"/etc/(?:kubernetes|etcd)/[-\w./*]+")
POLICY = """
    admission: {plugins: [AlwaysPullImages]}
    audit: {webhook: {url: "https://audit.example/"}}
    authorization: {webhooks: [{name: site, url: "https://authz.example/"}]}
"""
DESCRIPTION = """\
apiVersion: bundler/v1alpha1
name: users
kubernetes: {{version: 1.30.1}}
images: [{{ref: "registry.k8s.io/pause:1", use: pause}}, {{ref: "web:1", use: verify}}]
dns: {{provider: none}}
nodes: [{{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]{own}}}]
{more}
"""


def write(directory: Path, more: str = "", own: str = "") -> Path:
    path = directory / "cluster.yaml"
    path.write_text(DESCRIPTION.format(more=more, own=own))
    return path


def render_units(directory: Path, minor: str, more: str = "") -> dict[str, str]:
    """The units of all nodes, by name without .service."""
    plan = load_plan(directory, minor, "", more)
    units = {}
    for node in plan.nodes:
        context = make_context(plan, node, None)
        for file in list_files(plan, node):
            if not re.fullmatch(r"rootfs/etc/systemd/system/[-\w]+\.service", file.path):
                continue
            text = file.content.decode()
            if file.suffix == RENDERED:
                text = render_template(file.content, file.origin, context)
            units[Path(file.path).stem] = text
    return units


def test_each_user_has_an_id_of_its_own_below_those_of_people() -> None:
    users = list_default_users()
    ids = [user.id for user in users]
    assert len(set(ids)) == len(ids)
    assert all(100 < number < 1000 for number in ids)
    known = {name.replace(".timer", ".service") for name, _, _ in UNITS}
    assert {f"{unit}.service" for user in users for unit in user.units} <= known
    units = [unit for user in users for unit in user.units]
    assert len(set(units)) == len(units)


@pytest.mark.parametrize("minor", ["1.14", "1.20", "1.30", MINORS[-1]])
def test_a_unit_gets_every_file_that_its_flags_name(minor: str, tmp_path: Path) -> None:
    units = render_units(tmp_path, minor, POLICY if minor != "1.14" else "")
    plan = load_plan(tmp_path, minor, "")
    seen = set()
    for name, text in units.items():
        user = user_of(plan.cluster, name)
        if user is None:
            continue
        commands = [word for words in read_unit(text)["[Service]ExecStart"] for word in words]
        for path in SPLIT.findall("\n".join(commands)):
            assert is_given(plan.cluster, user, path), f"{name}: {path}"
            seen.add(path)
    assert {"/etc/kubernetes/pki/sa.key", "/etc/etcd/pki/peer.key"} <= seen


def test_a_unit_gets_every_file_that_any_flag_may_name(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path)).cluster
    for component in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        user = user_of(cluster, component)
        assert user
        for row in list_flags(component):
            text = re.sub(r"\{\{ policy \}\}", "/etc/kubernetes/policy", row.value)
            text = re.sub(
                r"\{\{ kubeconfig_of\(.*?\) \}\}", "/etc/kubernetes/policy/x.kubeconfig", text
            )
            for path in SPLIT.findall(text):
                assert is_given(cluster, user, path), f"{component}: --{row.flag}"


def test_a_unit_gets_every_file_that_it_reads_again(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path)).cluster
    for row in read_table("hot_reload.tsv"):
        user = user_of(cluster, row["component"])
        if user is None:
            continue
        files = [one.path for unit in user.units for one in list_unit_files(cluster, unit)]
        inside = any(path.startswith(f"{row['path']}/") for path in files)
        assert inside or is_given(cluster, user, row["path"]), row


@pytest.mark.parametrize(
    ("unit", "scripts"),
    [
        ("etcd", ("etcd/*/etcd-start.sh",)),
        ("kube-apply", ("control-plane/*/apply-addons*.sh", "control-plane/*/spent-tokens.sh")),
        ("kube-addons", ("control-plane/*/site-addons*.sh",)),
        ("kube-csr-approver", ("control-plane/*/approve-csrs*.sh",)),
        ("kube-node-labeler", ("control-plane/*/label-nodes.sh",)),
        ("kube-node-remover", ("control-plane/*/remove-nodes.sh",)),
        ("etcd-flannel-proxy", ("etcd-flannel-proxy/*/flannel-describe.sh",)),
    ],
)
def test_a_unit_gets_every_file_that_its_script_names(
    unit: str, scripts: tuple[str, ...], tmp_path: Path
) -> None:
    cluster = load_cluster(write(tmp_path)).cluster
    files = {one.path for one in list_unit_files(cluster, unit)}
    named = set()
    for pattern in scripts:
        overlay, _, name = pattern.split("/")
        for script in (templates_directory() / overlay / "rootfs/opt/k8s/libexec").glob(name):
            code = re.sub(r"(?m)^\s*#.*$", "", script.read_text())
            named |= set(re.findall(r"\}(/(?:etc/kubernetes|etc/etcd)/[-\w./]+)", code))
            named |= set(re.findall(r"\$prefix(/etc/(?:kubernetes|etcd)/[-\w./]+)", code))
    named -= {"/etc/kubernetes/pki", "/etc/etcd/pki"}  # directories, whose files are in `files`
    missing = {
        path
        for path in named
        if path not in files and not any(one.startswith(f"{path}/") for one in files)
    }
    assert missing == set()
    assert any(one.startswith(("/etc/kubernetes/", "/etc/etcd/")) for one in files)


def test_kube_addons_gets_every_file_of_add_ons_and_of_their_hooks(tmp_path: Path) -> None:
    plan = load_plan(tmp_path, "1.30", "")
    hook = PlannedHook(
        events=("pre-install",), words=("Job.batch", "shop", "a"), marks="-", content="a: 1\n",
        is_secret=True,
    )  # fmt: skip
    parts = dict.fromkeys(ORDER, "a: 1\n")
    addon = PlannedAddon(
        name="web", needs=(), timeout=60, prune="all", parts=parts, objects=(), hooks=(hook,)
    )
    node = next(node for node in plan.nodes if node.has(Role.CONTROL_PLANE))
    files = make_addon_files(dataclasses.replace(plan, addons=(addon,)), node)
    paths = [file.path.removeprefix("rootfs") for file in files]
    assert "/etc/kubernetes/site-addons/web/hooks/001.yaml" in paths
    user = user_of(plan.cluster, "kube-addons")
    assert user
    assert [path for path in paths if not is_given(plan.cluster, user, path)] == []


def test_no_unit_gets_a_secret_that_no_part_of_it_reads(tmp_path: Path) -> None:
    """The keys of the CA and of etcd's peers open everything: who may read them is a list."""
    cluster = load_cluster(write(tmp_path)).cluster
    readers: dict[str, set[str]] = {}
    secrets = (
        "/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/sa.key", "/etc/etcd/pki/peer.key",
        "/etc/kubernetes/encryption-config.yaml", "/etc/kubernetes/admin.kubeconfig",
        "/etc/kubernetes/policy/kms-plugin.env", "/etc/kubernetes/bootstrap-tokens.yaml",
    )  # fmt: skip
    for user in list_default_users():
        for path in secrets:
            if is_given(cluster, user, path):
                readers.setdefault(path, set()).add(user.name)
    assert readers == {
        "/etc/kubernetes/pki/ca.key": {"kube-controller-manager"},
        "/etc/kubernetes/pki/sa.key": {"kube-apiserver", "kube-controller-manager"},
        "/etc/etcd/pki/peer.key": {"etcd"},
        "/etc/kubernetes/encryption-config.yaml": {"kube-apiserver"},
        "/etc/kubernetes/admin.kubeconfig": {"kube-apply"},
        "/etc/kubernetes/bootstrap-tokens.yaml": {"kube-apply"},
    }


def test_ids_of_cluster_yaml_replace_those_of_the_table(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path, "security: {user_ids: {etcd: 2640}}")).cluster
    etcd, apiserver = user_of(cluster, "etcd"), user_of(cluster, "kube-apiserver")
    assert etcd
    assert apiserver
    assert (etcd.id, apiserver.id) == (2640, 641)


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ("{etcd: 641}", "etcd and kube-apiserver both have 641: each needs an id of its own"),
        ("{etc: 2640}", "is not a user of bundler's units"),
        ("{etcd: 0}", "greater than or equal to 1"),
    ],
)
def test_wrong_ids_are_refused(ids: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_cluster(write(tmp_path, f"security: {{user_ids: {ids}}}"))
    assert fault in str(refused.value)


EXTRA = "extra: {{kube-apiserver: {{flags: {{tls-sni-cert-key: '{path},/etc/site/sni.key'}}}}}}"
FILES = ", files: {{/etc/site/sni.crt: {{content: x}}, /etc/site/sni.key: {{content: x, mode: '0640', owner: '{owner}'}}}}"


def test_a_file_that_the_user_can_read_is_accepted(tmp_path: Path) -> None:
    own = FILES.format(owner="root:kube-apiserver")
    loaded = load_cluster(write(tmp_path, EXTRA.format(path="/etc/site/sni.crt"), own))
    assert not [one for one in loaded.warnings if "kube-apiserver" in str(one)]


@pytest.mark.parametrize(
    ("path", "owner", "fault"),
    [
        ("/etc/site/sni.crt", "root:root", "give it `owner: kube-apiserver:kube-apiserver` in `files`"),
        ("/root/sni.crt", "root:kube-apiserver", "/root/sni.crt is in a home directory"),
        ("/tmp/sni.crt", "root:kube-apiserver", "/tmp/sni.crt is in a place of which the unit has one"),
        ("/etc/kubernetes/pki/ca.key", "root:kube-apiserver", "and /etc/kubernetes/pki/ca.key is not among it"),
    ],
)  # fmt: skip
def test_a_file_that_the_user_cannot_read_is_refused(
    path: str, owner: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_cluster(write(tmp_path, EXTRA.format(path=path), FILES.format(owner=owner)))
    assert fault in str(refused.value)


def test_a_file_that_only_the_host_has_is_warned_of(tmp_path: Path) -> None:
    extra = "extra: {kube-apiserver: {flags: {oidc-ca-file: /etc/site/oidc.crt}}}"
    path = write(tmp_path, extra)
    path.write_text(path.read_text().replace("1.30.1", "1.28.1"))
    warnings = [str(one) for one in load_cluster(path).warnings]
    assert any("which must be able to use /etc/site/oidc.crt" in text for text in warnings)


def test_paths_of_urls_are_no_files(tmp_path: Path) -> None:
    flags = "{authorization-always-allow-paths: '/healthz,/readyz'}"
    extra = f"extra: {{kube-controller-manager: {{flags: {flags}}}}}"
    loaded = load_cluster(write(tmp_path, extra))
    assert not [one for one in loaded.warnings if "/healthz" in str(one)]


def test_data_in_a_home_directory_stays_visible(tmp_path: Path) -> None:
    plan = load_plan(tmp_path, "1.30", "", "etcd: {data_dir: /home/etcd/data}")
    node = next(node for node in plan.nodes if node.name == "e1")
    lines = make_context(plan, node, None)["service"]("etcd")
    assert "ReadWritePaths=-/home/etcd/data" in lines
    assert not [line for line in lines if line.startswith("ProtectHome=")]


def test_no_unit_has_a_dynamic_user(tmp_path: Path) -> None:
    for text in render_units(tmp_path, "1.30").values():
        assert "DynamicUser" not in text


def test_each_row_of_the_sandbox_has_a_reason_and_a_version() -> None:
    units = {name.rpartition(".")[0] for name, _, _ in UNITS} | {"users"}
    for row in list_sandbox():
        assert row.why
        assert row.since.isdigit()
        assert set(row.units) <= units, row
    settings = [(row.setting, unit) for row in list_sandbox() for unit in row.units]
    assert len(set(settings)) == len(settings)


@pytest.mark.skipif(
    not SYSTEMD, reason="units cannot be read by systemd: there is no systemd-analyze"
)
@pytest.mark.parametrize("minor", [OLDEST, "1.30"])
def test_units_are_not_more_exposed_than_the_table_says(minor: str, tmp_path: Path) -> None:
    levels = {row["unit"]: row for row in read_table("sandbox-levels.tsv")}
    (tmp_path / "hash").write_text("$6$salt$hash\n")
    users = f"[{{name: payments, password: {tmp_path}/hash}}]"
    more = (
        "network: {policy: {engine: kube-router}}\n"
        f"registry: {{nodes: [e1, b1], push: {{users: {users}}}}}"
    )
    units = render_units(tmp_path, minor, more)
    assert "kube-registry-copy" in units
    for name, text in units.items():
        if name not in levels:
            continue
        assert float(levels[name]["after"]) <= float(levels[name]["limit"]) or levels[name]["why"]
        assert measure(name, text, tmp_path) <= float(levels[name]["after"]), name


def measure(name: str, text: str, directory: Path) -> float:
    """The exposure level that systemd-analyze gives a unit."""
    unit = directory / f"{name}.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
    if not found:
        pytest.skip("units cannot be judged by systemd: its systemd-analyze has no --offline")
    assert "Unknown key" not in done.stderr, done.stderr
    return float(found[1])
