"""The cluster's own registry: what cluster.yaml may say, and what is rendered for its hosts and for workers."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from support.registries import MadeImage, make_index, make_layer, sha256

from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import ClusterPlan, NodePlan, images_of, make_plan
from bundler.cluster.registry_service import repository_of
from bundler.cluster.schema import Role
from bundler.errors import ArtifactError, ConfigError
from bundler.files import SECRET_MODE
from bundler.formats.image_manifests import parse_manifest
from bundler.formats.image_references import parse_reference
from bundler.formats.stored_images import StoredImage
from bundler.overlays.files import list_fetched, list_files
from bundler.overlays.templating import render_template
from bundler.pki.declarations import CERTIFICATES, list_owners, make_content
from bundler.pki.endpoints import list_endpoints
from bundler.render.context import make_context
from bundler.render.registries import make_registry_files
from bundler.render.registry import USERS, list_writes, make_seed, make_user_files
from bundler.sources.payloads import ImageFiles

BASE = """\
apiVersion: bundler/v1alpha1
name: base
kubernetes: {version: 1.36.2}
runtime: {engine: containerd}
dns: {provider: none}
registry:
  nodes: [one, two]
  name: registry.example
  push: {users: [{name: web, password: web.hash}]}
nodes:
  - {name: one, address: 192.0.2.1, roles: [etcd, control-plane]}
  - {name: two, address: 192.0.2.2, roles: [registry]}
  - {name: three, address: 192.0.2.3, roles: [worker]}
images:
  - {ref: "quay.io/team/web:1.0", where: registry}
  - {ref: "registry.example.org:5443/team/db:2.0", where: registry}
  - {ref: "nginx:1.27", where: registry}
  - {ref: "quay.io/team/agent:1.0"}
"""
HASH = "$6$salt$" + "a" * 86


def load(directory: Path, *changes: tuple[str, str], hashed: str = f"{HASH}\n") -> ClusterPlan:
    text = BASE
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (directory / "web.hash").write_text(hashed)
    (directory / "cluster.yaml").write_text(text)
    return make_plan(load_cluster(directory / "cluster.yaml").cluster)


DOCKER = ("{engine: containerd}", "{engine: docker, cri_dockerd: 0.4.0}")
PUSH = "  push: {users: [{name: web, password: web.hash}]}\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("[one, two]", "[one, four]")], r"registry.nodes\[1\]: there is no node four: name one of `nodes`"),
        ([("[one, two]", "[one, one]"), ("[registry]", "[worker]")], r"registry.nodes\[1\]: one is listed twice"),
        ([("[one, two]", "[one]")], r"nodes\[1\].roles: the role registry is for hosts that registry.nodes names"),
        ([("[one, two]", "[one, two, three, two]")], r"registry.nodes"),
        ([("  name: registry.example\n", "  port: 6443\n")], r"registry.port: 6443 is the port of another unit on one"),
        ([("  name: registry.example\n", "  port: 5001\n")], r"port and push.port must differ"),
        ([("[one, two]", "[three]"), ("[registry]", "[worker]"), ("  name: registry.example\n", "  port: 30000\n")], r"30000 is in network.node_port_range, and three is a worker"),
        ([("  name: registry.example\n", "  storage: /var/lib/etcd/registry\n")], r"registry.storage: /var/lib/etcd/registry and etcd.data_dir /var/lib/etcd are one inside the other"),
        ([("{name: web, pass", "{name: nginx, prefix: library, pass")], r"prefix: library has docker.io/library/nginx:1.27 of the bundle"),
        ([("{name: web, pass", "{name: web, prefix: quay.io, pass")], r"registry.push.users\[0\].prefix"),
        ([("password: web.hash}]", "password: web.hash}, {name: web, password: web.hash}]")], r"users\[1\].name: web is listed twice"),
        ([("password: web.hash", "password: none.hash")], r"none.hash: cannot be read; write it with: openssl passwd -6 >"),
        ([('{ref: "quay.io/team/web:1.0", where: registry}', '{ref: "quay.io/team/web:1.0", where: registry, use: verify}')], r"images\[0\].where: workers need the verify image before they can pull any"),
        ([("quay.io/team/web:1.0", "registry.k8s.io/pause:3.10.2")], r"workers need the pause image before they can pull any"),
        ([DOCKER], r"images\[0\].where: Docker has mirrors of docker.io only, and pulls quay.io/team/web:1.0 from quay.io itself"),
        ([("kubernetes: {version: 1.36.2}", "kubernetes: {version: 1.20.2}"), ("{engine: containerd}", "{engine: containerd, version: 1.5.18}")], r"containerd 1.5.18 cannot use such a mirror: use 1.6 or later"),
        ([(BASE[BASE.index("registry:\n"):BASE.index("nodes:\n  - ")], ""), ("[registry]", "[worker]")], r"images\[0\].where: the cluster has no registry: add `registry: \{nodes: \[...\]\}`"),
    ],
)  # fmt: skip
def test_a_registry_that_cannot_work_is_refused(
    tmp_path: Path, changes: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *changes)
    assert re.search(message, caught.value.message), caught.value.message


@pytest.mark.parametrize(
    "content", ["", "secret\n", "web:$6$a$b\n", "$1$salt$hash\n", "$6$a$b\n$6$c$d\n"]
)
def test_a_file_without_a_single_strong_hash_is_refused_and_not_quoted(
    tmp_path: Path, content: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, hashed=content)
    assert "must have one line, a hash of crypt(5)" in caught.value.message
    assert "secret" not in caught.value.message
    assert "salt" not in caught.value.message


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("nginx:1", "library/nginx"),
        ("docker.io/team/web:1", "team/web"),
        ("registry.k8s.io/coredns/coredns:v1", "registry.k8s.io/coredns/coredns"),
        ("Registry.example:5443/team/web:1", "registry.example_5443/team/web"),
    ],
)
def test_each_upstream_registry_has_repositories_of_its_own(
    reference: str, repository: str
) -> None:
    assert repository_of(parse_reference(reference)) == repository
    parse_reference(f"host.example/{repository}:1")  # distribution accepts the name


def test_hosts_get_the_role_their_units_a_certificate_and_the_program(tmp_path: Path) -> None:
    plan = load(tmp_path)
    assert [node.name for node in plan.having(Role.REGISTRY)] == ["one", "two"]
    for node in plan.nodes:
        fetched = {file.path for file in list_fetched(plan, node)}
        assert ("rootfs/opt/k8s/bin/registry" in fetched) is node.has(Role.REGISTRY)
    spec = next(spec for spec in CERTIFICATES if spec.name == "registry-server")
    owners = list_owners(spec, plan)
    assert [node.name for node in owners if node] == ["one", "two"]
    names = {str(name) for name in make_content(spec, plan, owners[1]).names}
    assert names == {"two", "localhost", "192.0.2.2", "127.0.0.1", "registry.example"}
    titles = {endpoint.title for endpoint in list_endpoints(plan)}
    assert {"kube-registry-nginx on one", "kube-registry-nginx on two"} <= titles


def context_of(plan: ClusterPlan, name: str) -> tuple[NodePlan, dict[str, object]]:
    node = next(node for node in plan.nodes if node.name == name)
    return node, make_context(plan, node, None)


def test_only_the_first_host_has_the_port_and_the_users_of_pushes(tmp_path: Path) -> None:
    plan = load(tmp_path)
    one, first = context_of(plan, "one")
    two, second = context_of(plan, "two")
    assert {"5000:kube-registry-nginx.service", "5001:kube-registry-nginx.service"} <= set(
        first["ports"]
    )  # type: ignore[call-overload]
    assert second["ports"] == ("5000:kube-registry-nginx.service",)
    assert second["open_ports"] == ("5000/tcp",)
    (users,) = make_user_files(plan, one)
    assert (users.path, users.mode) == (USERS, SECRET_MODE)
    assert users.content == f"web:{HASH}\n".encode()
    assert not list(make_user_files(plan, two))
    unseen = next(node for node in plan.nodes if node.name == "three")
    assert not list(make_user_files(plan, unseen))


@pytest.mark.parametrize(
    ("request_line", "may"),
    [
        ("web POST /v2/web/app/blobs/uploads/", True),
        ("web POST /v2/web/a/b-c/d.e__f/blobs/uploads/?mount=sha256:0&from=x/y", True),
        ("web PATCH /v2/web/app/blobs/uploads/0-1?_state=a%3D%3D", True),
        ("web PUT /v2/web/app/manifests/sha256:00", True),
        ("web DELETE /v2/web/app/manifests/sha256:00", True),
        ("web PUT /v2/web/manifests/1.0", False),
        ("web PUT /v2/webs/app/manifests/1.0", False),
        ("web PUT /v2/web/../other/manifests/1.0", False),
        ("web PUT /v2/web/%2e%2e/other/manifests/1.0", False),
        ("web PUT /v2/web/app/manifests/1.0?x", False),
        ("web DELETE /v2/web/app/blobs/sha256:00", False),
        ("other PUT /v2/web/app/manifests/1.0", False),
        (" PUT /v2/web/app/manifests/1.0", False),
    ],
)  # fmt: skip
def test_writes_are_below_the_prefix_of_the_user(
    tmp_path: Path, request_line: str, may: bool
) -> None:
    registry = load(tmp_path).cluster.registry
    assert registry
    assert registry.push
    patterns = list(list_writes(registry.push.users))
    assert any(re.fullmatch(pattern, request_line) for pattern in patterns) is may


def hosts_of(plan: ClusterPlan) -> dict[str, dict[str, object]]:
    worker = next(node for node in plan.nodes if node.has(Role.WORKER))
    return {
        Path(file.path).parent.name: tomllib.loads(bytes(file.content).decode())
        for file in make_registry_files(plan, worker)
        if file.path.endswith("/hosts.toml")
    }


def test_containerd_asks_the_registry_first_then_mirrors_then_upstream(tmp_path: Path) -> None:
    mirrors = "{engine: containerd, registries: [{host: quay.io, mirrors: ['https://m.example']}]}"
    plan = load(tmp_path, ("{engine: containerd}", mirrors))
    found = hosts_of(plan)
    assert list(found) == [
        "quay.io", "registry.example.org:5443", "docker.io",
        "registry.example:5000", "192.0.2.1:5000", "192.0.2.2:5000",
    ]  # fmt: skip
    hosts = found["quay.io"]["host"]
    assert isinstance(hosts, dict)
    assert list(hosts) == [
        "https://192.0.2.1:5000/v2/quay.io", "https://192.0.2.2:5000/v2/quay.io", "https://m.example",
    ]  # fmt: skip
    own = {
        "capabilities": ["pull", "resolve"], "ca": "/etc/kubernetes/pki/ca.crt", "override_path": True,
    }  # fmt: skip
    assert hosts["https://192.0.2.1:5000/v2/quay.io"] == own
    assert found["quay.io"]["server"] == "https://quay.io"
    docker = found["docker.io"]["host"]
    assert isinstance(docker, dict)
    assert list(docker) == ["https://192.0.2.1:5000", "https://192.0.2.2:5000", "https://registry-1.docker.io"]  # fmt: skip
    pushed = found["192.0.2.2:5000"]["host"]
    assert isinstance(pushed, dict)
    assert list(pushed) == ["https://192.0.2.2:5000", "https://192.0.2.1:5000"]


def test_docker_has_the_registry_as_its_first_mirror_and_trusts_the_cas(tmp_path: Path) -> None:
    only_hub = BASE[BASE.index('  - {ref: "quay.io/team/web') : BASE.index('  - {ref: "nginx')]
    runtime = "{engine: docker, cri_dockerd: 0.4.0, registry_mirrors: ['https://m.example']}"
    plan = load(tmp_path, (only_hub, ""), ("{engine: containerd}", runtime))
    node, context = context_of(plan, "three")
    config = context["config"]("docker")  # type: ignore[operator]
    mirrors = ["https://192.0.2.1:5000", "https://192.0.2.2:5000", "https://m.example"]
    assert config["registry-mirrors"] == mirrors
    files = {file.path: file for file in list_files(plan, node)}
    assert "rootfs/opt/k8s/libexec/registry-trust.sh" in files
    unit = files["rootfs/etc/systemd/system/docker.service"]
    text = render_template(unit.content, unit.origin, context)
    assert "ExecStartPre=/opt/k8s/libexec/registry-trust.sh 192.0.2.1:5000 192.0.2.2:5000\n" in text


def test_without_a_registry_nothing_of_it_is_rendered(tmp_path: Path) -> None:
    start, end = BASE.index("registry:\n"), BASE.index("nodes:\n  - ")
    plan = load(tmp_path, (BASE[start:end], ""), ("[registry]", "[worker]"), (", where: registry", ""))  # fmt: skip
    assert "registry" not in plan.features
    for node in plan.nodes:
        assert not any("registry" in file.path for file in list_files(plan, node))
        assert not list(make_registry_files(plan, node))
    assert "registry-server" not in {spec.name for spec in CERTIFICATES if not spec.feature}


# ---- what is seeded

WEB = {arch: MadeImage([make_layer("web", arch.encode())], arch) for arch in ("amd64", "arm64")}


def stored(image: MadeImage, index: bytes = b"") -> StoredImage:
    manifest = parse_manifest(image.manifest, image.media_type, "web")
    return StoredImage(manifest=manifest, config=image.config, layers=(), index=index)


def seed(plan: ClusterPlan, images: dict[tuple[str, str], StoredImage]) -> list[list[str]]:
    node = next(node for node in plan.nodes if node.name == "two")
    _, text = make_seed(plan, node, ImageFiles(images=images, layers={}, packages={}))
    return [line.split("\t") for line in text.splitlines()[1:]]


ONLY_WEB = BASE[BASE.index('  - {ref: "registry.example.org') :]
TWO = ("roles: [worker]}\n", "roles: [worker]}\n  - {name: four, address: 192.0.2.4, roles: [worker], arch: arm64}\n")  # fmt: skip


def test_a_tag_stands_for_upstreams_index_for_one_of_its_own_or_for_the_manifest(
    tmp_path: Path,
) -> None:
    name = "quay.io/team/web:1.0"
    index = make_index(list(WEB.values()))
    plan = load(tmp_path, (ONLY_WEB, ""))
    (tag,) = (row for row in seed(plan, {(name, "amd64"): stored(WEB["amd64"])}) if row[0] == "tag")
    assert tag == ["tag", "quay.io/team/web", sha256(WEB["amd64"].manifest)[7:], "1.0"]
    plan = load(tmp_path, (ONLY_WEB, ""), TWO)
    rows = seed(plan, {(name, arch): stored(WEB[arch], index) for arch in WEB})
    assert ["tag", "quay.io/team/web", sha256(index)[7:], "1.0"] in rows
    assert [row[0] for row in rows] == ["blob"] * 5 + ["layer"] * 4 + ["manifest"] * 3 + ["tag"]
    rows = seed(plan, {(name, arch): stored(WEB[arch]) for arch in WEB})
    (tag,) = (row for row in rows if row[0] == "tag")
    assert tag[2] not in {sha256(image.manifest)[7:] for image in WEB.values()}
    assert ["manifest", "quay.io/team/web", tag[2]] in rows


def test_a_digest_that_the_registry_would_not_have_is_refused(tmp_path: Path) -> None:
    wanted = sha256(b"of an index that a file does not have")
    plan = load(tmp_path, (ONLY_WEB, ""), ("web:1.0", f"web:1.0@{wanted}"))
    with pytest.raises(ArtifactError, match=f"pods name it by {wanted}"):
        seed(plan, {("quay.io/team/web:1.0", "amd64"): stored(WEB["amd64"])})


def test_workers_do_not_load_what_is_in_the_registry(tmp_path: Path) -> None:
    plan = load(tmp_path)
    worker = next(node for node in plan.nodes if node.has(Role.WORKER))
    loaded = [image.ref for image in images_of(plan, worker)]
    assert loaded == ["quay.io/team/agent:1.0", "registry.k8s.io/pause:3.10.2"]


def test_the_configuration_of_the_registry_is_yaml_with_the_storage_of_cluster_yaml(
    tmp_path: Path,
) -> None:
    plan = load(tmp_path, ("  name: registry.example\n", "  storage: /data/registry\n"))
    node, context = context_of(plan, "two")
    files = {file.path: file for file in list_files(plan, node)}
    file = files["rootfs/etc/kube-registry/config.yml"]
    config = yaml.safe_load(render_template(file.content, file.origin, context))
    assert config["storage"]["filesystem"] == {"rootdirectory": "/data/registry"}
    assert config["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    assert config["http"]["net"] == "unix"
    assert context["data_paths"] == ("/data/registry",)
