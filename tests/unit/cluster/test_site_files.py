"""`files` of cluster.yaml: what is accepted, where they go, and that a secret stays a secret."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.projects import open_plan

from bundler.bundle.inventory import BuildInputs, _list_site_files
from bundler.bundle.provenance import make_provenance
from bundler.bundle.sbom import make_sbom
from bundler.cache.store import Cache
from bundler.cluster.components import UNITS
from bundler.cluster.loader import Loaded, load_cluster
from bundler.cluster.plan import make_plan
from bundler.cluster.site_files import OWNED, SIZE_LIMIT
from bundler.errors import ConfigError
from bundler.overlays.files import list_paths
from bundler.project import Inputs, load
from bundler.render.node import render_node
from bundler.render.site_files import SITE_FILES

PATH = "/etc/chrony/conf.d/site.conf"
ONE = {"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}
TWO = {"name": "two", "address": "192.0.2.2", "roles": ["worker"]}


def write(directory: Path, files: dict[str, Any], **more: Any) -> Path:
    path = directory / "cluster.yaml"
    document = {
        "apiVersion": "bundler/v1alpha1", "name": "lab", "kubernetes": {"version": "1.36.4"},
        "dns": {"provider": "none"}, "nodes": [{**ONE, "files": files}, TWO], **more,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document, allow_unicode=True))
    return path


def read(directory: Path, files: dict[str, Any], **more: Any) -> Loaded:
    return load_cluster(write(directory, files, **more))


def refuse(directory: Path, files: dict[str, Any], **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(
            Inputs(description=write(directory, files, **more), cache=Cache(directory / "cache")),
            quiet=True,
        )
    return caught.value.message


def test_text_and_sources_become_files_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/agent.bin").write_bytes(b"\x00\xffraw")
    text = "# größe\nserver 192.0.2.9 iburst\n\tindented: 'x' {{ 7*7 }}\n"
    files = {
        PATH: {"content": text, "owner": "root:chrony", "restart": ["chrony.service"]},
        "/opt/site/agent": {"source": "site/agent.bin", "mode": "0755"},
        "/etc/site/line": {"content": "one line"},
        "/etc/site/empty": {"content": ""},
    }
    found = {file.path: file for file in make_plan(read(tmp_path, files).cluster).nodes[0].files}
    assert [*found] == sorted(files)
    assert found[PATH].read() == text.encode()
    assert (found[PATH].mode, found[PATH].owner) == (0o644, "root:chrony")
    assert found["/opt/site/agent"].read() == b"\x00\xffraw"
    assert found["/opt/site/agent"].mode == 0o755
    assert found["/etc/site/line"].read() == b"one line\n"
    assert found["/etc/site/empty"].read() == b""


def test_a_block_of_yaml_may_have_several_lines_and_nothing_else_may(tmp_path: Path) -> None:
    path = write(tmp_path, {})
    lines = "files:\n    /etc/site/a.conf:\n      content: |\n        one\n        two\n"
    path.write_text(path.read_text().replace("files: {}", lines))
    assert make_plan(load_cluster(path).cluster).nodes[0].files[0].read() == b"one\ntwo\n"
    hidden = {"/etc/site/a.conf": {"content": "a\u202eb"}}
    assert "U+202E" in refuse(tmp_path, hidden)
    owner = {"/etc/site/a.conf": {"content": "a", "owner": "root\n:adm"}}
    assert "a line break" in refuse(tmp_path, owner)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({}, "give source or content"),
        ({"content": "a", "source": "b"}, "give source or content"),
        ({"content": "a", "secret": True}, "a secret needs source"),
        ({"source": "b", "secret": True, "mode": "0640"}, "a secret has the mode 0600: remove mode"),
        ({"content": "a", "mode": "0600"}, "0600 is the mode of secrets: add secret: true"),
        ({"content": "a", "mode": 420}, 'must be four octal digits in quotes, such as "0644"'),
        ({"content": "a", "mode": "644"}, "must be four octal digits in quotes"),
        ({"content": "a", "mode": "4755"}, "must be four octal digits in quotes"),
        ({"content": "a", "mode": "0664"}, "0664 lets others than the owner write"),
        ({"content": "a", "mode": "0666"}, "0666 lets others than the owner write"),
        ({"content": "a", "mode": "0044"}, "0044 does not let the owner read"),
        ({"content": "a", "owner": "root"}, "must be USER:GROUP"),
        ({"content": "a", "owner": "root:adm:x"}, "must be USER:GROUP"),
        ({"content": "a", "owner": "-x:adm"}, "must be USER:GROUP"),
        ({"content": "a", "restart": ["chrony"]}, "must be the name of a systemd unit"),
        ({"content": "a", "restart": ["--now.service"]}, "must be the name of a systemd unit"),
        ({"content": "a", "restart": ["a b.service"]}, "must be the name of a systemd unit"),
        ({"content": "a", "reload": ["kubelet.service"]}, "kubelet.service is bundler's, and is restarted"),
        ({"content": "a", "reload": ["x.service"], "restart": ["x.service"]}, "x.service is restarted already"),
        ({"source": "none"}, "none: No such file or directory"),
        ({"source": "/dev/zero"}, "/dev/zero: must be a regular file"),
        ({"source": "."}, "Is a directory"),
        ({"content": "a", "colour": "red"}, "unknown key"),
    ],
)  # fmt: skip
def test_a_file_that_is_described_wrongly_is_refused(
    tmp_path: Path, file: dict[str, Any], said: str
) -> None:
    message = refuse(tmp_path, {PATH: file})
    assert f"nodes[0].files.{PATH}" in message
    assert said in message


def test_a_pipe_does_not_stop_the_build(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: must be a regular file" in refuse(tmp_path, {PATH: {"source": "pipe"}})


def test_a_source_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    assert "large: larger than 4 MiB" in refuse(tmp_path, {PATH: {"source": "large"}})
    with (tmp_path / "large").open("wb") as file:
        file.truncate(SIZE_LIMIT)
    nine = {f"/etc/site/{n}": {"source": "large"} for n in range(9)}
    assert "36 MiB together, and at most 32 MiB are possible" in refuse(tmp_path, nine)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *((f"{directory}/x", "is bundler's own directory") for directory in OWNED),
        ("/etc/kubernetes/addons/mine.yaml", "/etc/kubernetes is bundler's own directory"),
        ("/var/lib/kubelet/config", "/var/lib/kubelet is bundler's own directory"),
        ("/var/lib/etcd/member", "/var/lib/etcd is bundler's own directory"),
        ("/var/backups/etcd/x", "/var/backups/etcd is bundler's own directory"),
        ("/var/lib/containerd/x", "/var/lib/containerd is bundler's own directory"),
        ("/etc", "is a directory that holds bundler's"),
        ("/opt", "is a directory that holds bundler's"),
        ("/etc//kubernetes/x", "must not have // or /./"),
        ("/etc/./kubernetes/x", "must not have // or /./"),
        ("/etc/../etc/kubernetes/x", "must be an absolute path"),
        ("etc/x", "must be an absolute path"),
        ("/etc/x/", "must be an absolute path"),
        ("/etc/a b", "must be an absolute path"),
        ("/etc/passwd", "/etc/passwd has lines of others"),
        ("/etc/shadow", "/etc/shadow has lines of others"),
        ("/etc/fstab", "/etc/fstab has lines of others"),
        ("/usr/bin/ls", "/usr is the package manager's, except /usr/local"),
        ("/lib/systemd/system/x.service", "/lib is libraries of the operating system"),
        ("/bin/sh", "/bin is programs of the operating system"),
        ("/boot/grub.cfg", "/boot is the boot loader's"),
        ("/run/x/y", "/run is empty after a boot"),
        ("/var/run/x", "/var/run is empty after a boot"),
        ("/proc/sys/x", "/proc is the kernel's"),
        ("/dev/shm/x", "/dev is devices"),
        ("/tmp/x", "a place that every user can write"),
        ("/file", "must be in a directory of the host"),
        ("/etc/site/.bundler-new/x", "names that begin with .bundler-"),
        ("/etc/systemd/system/kubelet.service", "bundler has a file of its own"),
        ("/etc/systemd/system/docker.service", "bundler has a file of its own"),
        ("/etc/sysctl.d/99-kubernetes.conf", "bundler has a file of its own"),
        ("/etc/crictl.yaml", "bundler has a file of its own"),
    ],
)
def test_a_place_that_is_not_the_sites_is_refused(tmp_path: Path, path: str, said: str) -> None:
    assert said in refuse(tmp_path, {path: {"content": "a"}})


@pytest.mark.parametrize(
    "path",
    [
        "/usr/local/bin/agent",
        "/etc/systemd/system/containerd.service.d/10-proxy.conf",
        "/etc/systemd/system/site-agent.service",
        "/etc/sudoers.d/site",
        "/etc/ssh/sshd_config.d/site.conf",
        "/etc/kubernetes-site/x",
        "/opt/site/x",
        "/srv/x/y",
    ],
)
def test_places_of_a_site_are_accepted(tmp_path: Path, path: str) -> None:
    write(tmp_path, {path: {"content": "a"}})
    load(Inputs(description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache")), quiet=True)


def test_own_directories_of_a_host_are_its_own(tmp_path: Path) -> None:
    more = {"runtime": {"data_root": "/data/containerd"}, "kubernetes": {"version": "1.36.4", "kubelet_root": "/data/kubelet"}}  # fmt: skip
    read(tmp_path, {"/var/lib/kubelet-site/x": {"content": "a"}}, **more)
    for path in ("/data/containerd/x", "/data/kubelet/x"):
        assert "is bundler's own directory" in refuse(tmp_path, {path: {"content": "a"}}, **more)


def test_every_file_of_every_overlay_is_refused_by_name_or_by_directory(tmp_path: Path) -> None:
    own = {path.removeprefix("rootfs") for path in list_paths() if path.startswith("rootfs/")}
    message = refuse(tmp_path, {path: {"content": "a"} for path in own if not path.startswith("/etc/kubernetes/")})  # fmt: skip
    below = {path for path in own if any(path.startswith(f"{d}/") for d in OWNED)}
    for path in own - below:
        rest = refuse(tmp_path, {path: {"content": "a"}})
        assert "bundler" in rest, path
    assert message


def test_a_path_cannot_be_below_another_file(tmp_path: Path) -> None:
    files = {"/etc/site": {"content": "a"}, "/etc/site/b": {"content": "b"}}
    assert "files./etc/site: cannot be a file: /etc/site/b is below it" in refuse(tmp_path, files)


@pytest.mark.parametrize(
    "text",
    ["-----BEGIN RSA PRIVATE KEY-----\nx\n", "users:\n- user:\n    token: abc\n"],
)
def test_a_secret_that_is_not_called_one_is_refused(tmp_path: Path, text: str) -> None:
    assert "add `secret: true`" in refuse(tmp_path, {PATH: {"content": text}})
    (tmp_path / "key").write_text(text)
    assert "add `secret: true`" in refuse(tmp_path, {PATH: {"source": "key"}})
    (tmp_path / "key").chmod(0o600)
    loaded = read(tmp_path, {PATH: {"source": "key", "secret": True}})
    assert not [line for line in loaded.warnings if "chmod" in line]
    (tmp_path / "key").chmod(0o644)
    loaded = read(tmp_path, {PATH: {"source": "key", "secret": True}})
    (line,) = (line for line in loaded.warnings if "chmod" in line)
    assert "other users can read key: chmod 600 " in line


def test_files_of_defaults_and_groups_go_to_their_nodes_and_roles(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/motd").write_text("hello\n")
    (tmp_path / "parts/base.yaml").write_text(
        "defaults: {files: {/etc/motd.d/site: {source: motd, roles: [etcd]}}}\n"
    )
    files = {"/etc/site/b": {"mode": "0640"}}
    more = {
        "include": ["parts/base.yaml"],
        "defaults": {
            "files": {"/etc/site/a": {"content": "all", "restart": ["kube-apiserver.service"]}}
        },
        "groups": {"gpu": {"files": {"/etc/site/b": {"content": "gpu"}}}},
        "nodes": [{**ONE, "groups": ["gpu"], "files": files}, TWO],
    }
    one, two = make_plan(read(tmp_path, {}, **more).cluster).nodes
    assert [(file.path, file.mode) for file in one.files] == [
        ("/etc/motd.d/site", 0o644), ("/etc/site/a", 0o644), ("/etc/site/b", 0o640),
    ]  # fmt: skip
    assert one.files[0].read() == b"hello\n"
    assert one.files[1].restart == ("kube-apiserver.service",)
    assert [(file.path, file.restart) for file in two.files] == [("/etc/site/a", ())]


def test_the_bundle_has_the_files_their_table_and_nothing_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the-secret-text\n")
    files = {
        PATH: {
            "content": "a\n",
            "owner": "0:adm",
            "restart": ["chrony.service", "kubelet.service"],
        },
        "/etc/site/key": {"source": "key", "secret": True, "reload": ["site.service"]},
    }
    cluster = read(tmp_path, files).cluster
    inputs = Inputs(description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache"), state=tmp_path / "state")  # fmt: skip
    with open_plan(cluster, inputs) as (plan, secrets):
        node = plan.nodes[0]
        tree = render_node(plan, node, secrets)
        build = BuildInputs(artifacts={}, images={})  # type: ignore[arg-type]
        items = list(_list_site_files(plan, node, tree, build))
        others = render_node(plan, plan.nodes[1], secrets)
    assert (tree[f"rootfs{PATH}"].mode, tree["rootfs/etc/site/key"].mode) == (0o644, 0o600)
    assert tree[SITE_FILES].content == (
        b"# Files of cluster.yaml: PATH OWNER RESTART RELOAD, separated by tabs; units by spaces.\n"
        b"/etc/chrony/conf.d/site.conf\t0:adm\tchrony.service kubelet.service\t-\n"
        b"/etc/site/key\troot:root\t-\tsite.service\n"
    )
    assert SITE_FILES not in others
    secret_digest = tree["rootfs/etc/site/key"].sha256
    sbom = make_sbom("lab-one", {}, items, 0).decode()
    provenance = make_provenance({}, {}, items, tree, 0).decode()
    assert tree[f"rootfs{PATH}"].sha256 in sbom
    assert "/etc/site/key" in sbom
    assert secret_digest not in sbom + provenance
    inputs_of = json.loads(provenance)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["name"] for each in inputs_of if each["name"].startswith("/etc/")] == [PATH]
    for file in (*tree, *others):
        if file.mode != 0o600 and isinstance(file.content, bytes):
            assert b"the-secret-text" not in file.content


def test_every_unit_of_bundler_may_be_restarted_by_a_file(tmp_path: Path) -> None:
    units = list(dict.fromkeys(name for name, _, _ in UNITS))
    read(tmp_path, {PATH: {"content": "a", "restart": units}})
