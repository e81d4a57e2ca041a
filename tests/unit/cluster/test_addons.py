"""Add-ons: what is refused at which line, which images are found where, and what hosts apply."""

import re
import stat
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.json_shapes import read_shape
from support.paths import TEMPLATES
from typer.testing import CliRunner

from bundler.cache.store import Cache
from bundler.cli.app import app
from bundler.cluster.addons.kinds import OWN_OBJECTS
from bundler.cluster.addons.planned import plan_addons
from bundler.cluster.addons.proof import Proof
from bundler.cluster.loader import Loaded, load_cluster
from bundler.cluster.schema import Cluster
from bundler.downloads import list_tools
from bundler.errors import ArtifactError, BundlerError, ConfigError
from bundler.project import Inputs, load
from bundler.render.addons import make_addon_files
from bundler.sources import kustomize
from bundler.sources.tools import find_machine

HEAD = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {{version: {version}}}
nodes:
  - {{name: m1, address: 192.0.2.10, roles: [etcd, control-plane]}}
  - {{name: w1, address: 192.0.2.20, roles: [worker]}}
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      serviceAccountName: web
      containers:
      - name: web
        image: nginx:1.27
"""
ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: web}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: web}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: web}
subjects:
- {kind: ServiceAccount, name: web, namespace: default}
"""


def render_nothing(folder: Path, _: Cluster) -> bytes:
    raise ArtifactError(f"{folder}: no kubectl", hint="build on Linux")


def write(
    tmp_path: Path, *manifests: str, version: str = "1.36.4", more: str = "", keys: str = ""
) -> Path:
    """A cluster.yaml with one add-on, in files a.yaml, b.yaml, …"""
    folder = tmp_path / "web"
    folder.mkdir(exist_ok=True)
    for name, text in zip("abc", manifests, strict=False):
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    path = tmp_path / "cluster.yaml"
    addon = f"addons:\n  - {{name: web, manifests: web/{keys}}}\n"
    path.write_text(HEAD.format(version=version) + addon + more)
    return path


def read(*args: Any, **options: Any) -> Loaded:
    return load_cluster(write(*args, **options), render=render_nothing)


def faults(*args: Any, **options: Any) -> list[str]:
    """What is refused, without the place in cluster.yaml."""
    with pytest.raises(ConfigError) as caught:
        read(*args, **options)
    return [
        line.partition(": addons[0].manifests: ")[2] for line in caught.value.message.splitlines()
    ]


def item(kind: str, api: str = "v1", name: str = "a", **more: Any) -> str:
    return yaml.safe_dump({"apiVersion": api, "kind": kind, "metadata": {"name": name}, **more})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [1\n", "web/a.yaml:2:1: not valid YAML: did not find expected ',' or ']'"),
        ("a: 1\na: 2\n", "web/a.yaml:2:1: duplicate key a, first in line 1: keep one"),
        ("- 1\n", "web/a.yaml:1:1: must be an object of Kubernetes: a mapping with apiVersion, kind and metadata"),
        ("kind: Pod\n", "web/a.yaml:1:1: must be an object of Kubernetes, and has no metadata"),
        ("kind: Pod\nmetadata: {name: a}\n", "web/a.yaml:1:1: must be an object of Kubernetes, and has no apiVersion"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a b}\n", "web/a.yaml:1:1: metadata.name must be text such as controller"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n", "web/a.yaml:1:1: has generateName: each run would make one more; give it a name"),
        (item("TokenReview", "authentication.k8s.io/v1"), "web/a.yaml:1:1: TokenReview/default/a: TokenReview is a request, and nothing of it stays: remove it"),
        (item("Node"), "web/a.yaml:1:1: Node/a: Node cannot be in an add-on: the kubelets register Nodes: use `labels`, `annotations` and `taints` of `nodes`"),
        (item("Gadget", "example.com/v1"), "web/a.yaml:1:1: Gadget/a: Kubernetes 1.36 has no example.com/v1 Gadget, and no add-on has its CustomResourceDefinition: add the definition to an add-on"),
        (item("PodDisruptionBudget", "policy/v1beta1"), "web/a.yaml:1:1: PodDisruptionBudget/default/a: Kubernetes 1.25 removed policy/v1beta1 PodDisruptionBudget: use policy/v1"),
        (item("PodSecurityPolicy", "policy/v1beta1"), "web/a.yaml:1:1: PodSecurityPolicy/a: Kubernetes 1.25 removed policy/v1beta1 PodSecurityPolicy: remove it"),
        (item("ConfigMap", name="bundler-x"), "web/a.yaml:1:1: ConfigMap/default/bundler-x: names that begin with bundler- are of bundler: choose another"),
        (item("ConfigMap") + "---\n" + item("ConfigMap"), "web/a.yaml:6:1: ConfigMap/default/a: ConfigMap/default/a is already in web/a.yaml:1: keep one"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_manifest_is_said_with_file_and_line(
    tmp_path: Path, text: str, fault: str
) -> None:
    assert faults(tmp_path, text) == [fault]


def test_objects_that_bundler_itself_applies_are_refused(tmp_path: Path) -> None:
    """kube-prometheus has the APIService of metrics-server: two writers would take turns."""
    service = item("APIService", "apiregistration.k8s.io/v1", "v1beta1.metrics.k8s.io")
    reader = item("ClusterRole", "rbac.authorization.k8s.io/v1", "system:aggregated-metrics-reader")
    both = f"{service}---\n{reader}"
    assert read(tmp_path, both).addons.objects
    assert faults(tmp_path, both, more="metrics_server: {}\n") == [
        (
            "web/a.yaml:1:1: APIService/v1beta1.metrics.k8s.io: bundler makes it for `metrics_server`:"
            " leave the object out of the add-on, or remove the key"
        ),
        (
            "web/a.yaml:6:1: ClusterRole/system:aggregated-metrics-reader: bundler makes it for"
            " `metrics_server`: leave the object out of the add-on, or remove the key"
        ),
    ]
    dns = item("Deployment", "apps/v1", "coredns") + "  namespace: kube-system\n"
    assert faults(tmp_path, dns) == [
        (
            "web/a.yaml:1:1: Deployment/kube-system/coredns: bundler makes it for `dns`: leave the"
            " object out of the add-on, or set `dns: {provider: none}`"
        ),
    ]
    gpu = item("RuntimeClass", "node.k8s.io/v1", "nvidia", handler="nvidia")
    handlers = "runtime: {handlers: {nvidia: {program: /usr/bin/nvidia-container-runtime}}}\n"
    assert read(tmp_path, gpu).addons.objects
    assert faults(tmp_path, gpu, more=handlers) == [
        (
            "web/a.yaml:1:1: RuntimeClass/nvidia: bundler makes it for `runtime.handlers`: leave the"
            " object out of the add-on, or remove the key"
        ),
    ]


def test_the_table_of_bundlers_own_objects_has_those_of_its_templates() -> None:
    folders = {"coredns": "dns", "metrics-server": "metrics_server"}
    for overlay, key in folders.items():
        (path,) = (TEMPLATES / overlay / "rootfs/etc/kubernetes/addons").iterdir()
        titles = set()
        for document in re.split("^---$", path.read_text(), flags=re.MULTILINE):
            kind = re.search(r"^kind: (\S+)$", document, re.MULTILINE)
            metadata = re.search(r"^metadata:\n((?:  .*\n)+)", document, re.MULTILINE)
            assert kind
            assert metadata
            names = re.findall(r"^  (name|namespace): (\S+)$", metadata[1], re.MULTILINE)
            words = (kind[1], dict(names).get("namespace"), dict(names)["name"])
            titles.add("/".join(word for word in words if word))
        assert titles == set(OWN_OBJECTS[key]), overlay


def test_an_api_that_comes_later_is_named_with_the_one_to_use(tmp_path: Path) -> None:
    found = faults(tmp_path, item("CronJob", "batch/v1"), version="1.20.2")
    assert found == [
        "web/a.yaml:1:1: CronJob/default/a: batch/v1 CronJob comes with Kubernetes 1.21, and this is 1.20: use batch/v1beta1"
    ]


def test_needs_that_do_not_exist_or_go_in_a_circle_are_refused(tmp_path: Path) -> None:
    more = "  - {name: b, manifests: web/a.yaml, needs: [web, oher]}\n"
    path = write(tmp_path, item("ConfigMap"), keys=", needs: [b]", more=more)
    with pytest.raises(ConfigError) as caught:
        load_cluster(path, render=render_nothing)
    assert [line.partition(" addons")[2] for line in caught.value.message.splitlines()] == [
        "[0].needs[0]: b needs web, so neither is ever applied: remove one",
        "[1].needs[0]: web needs b, so neither is ever applied: remove one",
        "[1].needs[1]: there is no add-on oher",
    ]


IMAGES = """\
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    helm.sh/images: |
      - name: tool
        image: quay.io/a/annotated:1
spec:
  initContainers: [{name: i, image: "quay.io/a/init:1"}]
  containers:
  - name: c
    image: busybox:1.36@sha256:0000000000000000000000000000000000000000000000000000000000000000
    env:
    - {name: RELATED_IMAGE_X, value: "quay.io/a/variable:1"}
    - {name: REPLICAS, value: "3"}
    args: [--reloader-image=quay.io/a/option:1, --listen=0.0.0.0:80]
  volumes: [{name: v, image: {reference: "quay.io/a/volume:1"}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data:
  helper.yaml: |
    containers:
    - image: busybox:1.35
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  names: {kind: Gadget}
  scope: Cluster
---
apiVersion: example.com/v1
kind: Gadget
metadata: {name: a}
spec:
  baseImage: quay.io/a/resource:1
  sidecar: {repository: quay.io/a/parts, tag: 2.1}
  description: see quay.io/a/prose:1
"""


def test_images_are_found_wherever_they_are(tmp_path: Path) -> None:
    loaded = read(tmp_path, IMAGES)
    own = [image.ref for image in loaded.cluster.images if image.use == "addon"]
    zeros = "0" * 64
    assert own == [
        "quay.io/a/annotated:1", "quay.io/a/init:1", f"busybox:1.36@sha256:{zeros}", "quay.io/a/variable:1",
        "quay.io/a/option:1", "quay.io/a/volume:1", "busybox:1.35", "quay.io/a/resource:1", "quay.io/a/parts:2.1",
    ]  # fmt: skip
    places = {each.text: each.place for each in loaded.addons.found}
    assert places["quay.io/a/init:1"] == "web/a.yaml:10 Pod/default/a spec.initContainers[0].image"
    assert places["busybox:1.35"] == "web/a.yaml:24 ConfigMap/default/a data.helper.yaml"
    assert places["quay.io/a/resource:1"] == "web/a.yaml:40 Gadget/a spec.baseImage"


def test_what_only_looks_like_an_image_must_be_added_or_acknowledged(tmp_path: Path) -> None:
    text = item("ConfigMap", data={"note": "run quay.io/a/tool:1 by hand"})
    (fault,) = faults(tmp_path, text)
    assert fault == (
        "web/a.yaml:3:3: data.note: quay.io/a/tool:1 looks like an image, and it is not certain that it is one:"
        " add it to `images` as {ref: quay.io/a/tool:1}, or to images_not_needed: [quay.io/a/tool:1]"
    )
    added = read(tmp_path, text, more="images: [{ref: 'quay.io/a/tool:1'}]\n")
    assert "quay.io/a/tool:1" in {image.ref for image in added.cluster.images}
    left_out = read(tmp_path, text, more="images_not_needed: ['quay.io/a/tool:1', 'x']\n")
    assert "quay.io/a/tool:1" not in {image.ref for image in left_out.cluster.images}
    assert any(
        "images_not_needed[1]: x: no add-on names it: remove it" in w for w in left_out.warnings
    )


def test_an_image_without_a_tag_in_a_text_or_custom_resource_must_get_one(tmp_path: Path) -> None:
    text = item("ConfigMap", data={"pod.yaml": "containers:\n- image: busybox\n"})
    (fault,) = faults(tmp_path, text)
    assert fault == (
        "web/a.yaml:3:3: data.pod.yaml: busybox looks like an image without a fixed tag: write NAME:TAG there, or"
        " confirm that it is not one or not needed with images_not_needed: [busybox]"
    )
    read(tmp_path, text, more="images_not_needed: [busybox]\n")


def test_a_workload_that_may_start_pods_is_not_proved_until_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    (found,) = faults(tmp_path, DEPLOYMENT, ROLE)
    assert found == (
        "web/a.yaml:1:1: Deployment/default/web: ClusterRole web lets it start pods, with images that no manifest"
        " names: bundler cannot prove that all of them are carried. Add those that it starts to `images`, then"
        " confirm with images_not_needed: [Deployment/default/web]"
    )
    read(tmp_path, DEPLOYMENT, ROLE, more="images_not_needed: [Deployment/default/web]\n")
    read(tmp_path, DEPLOYMENT, ROLE.replace("create", "list"))


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        ("nginx", "must have a fixed tag"),
        ("nginx:latest", "must have a fixed tag"),
        ("Nginx:1", "must have a repository such as library/nginx"),
    ],
)
def test_an_image_that_bundles_cannot_carry_is_refused_at_its_line(
    tmp_path: Path, image: str, fault: str
) -> None:
    (found,) = faults(tmp_path, DEPLOYMENT.replace("nginx:1.27", image))
    assert found.startswith(
        f"web/a.yaml:10:9: spec.template.spec.containers[0].image: the image {image} {fault}"
    )


def plan(loaded: Loaded, digests: dict[str, str] | None = None) -> Any:
    return plan_addons(loaded.cluster, loaded.addons.objects, digests or {})


def test_hosts_apply_parts_in_order_and_secrets_are_in_a_part_of_their_own(tmp_path: Path) -> None:
    webhook = item("ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "hook")
    secret = item("Secret", stringData={"password": "x"})
    claim = item("PersistentVolumeClaim", name="data")
    loaded = read(tmp_path, webhook + "---\n" + secret, DEPLOYMENT, claim, keys=", namespace: shop")
    (addon,) = plan(loaded)
    assert list(addon.parts) == ["namespaces", "secrets", "objects"]
    assert addon.objects == (
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io - hook -",
        "Deployment.apps shop web wait", "PersistentVolumeClaim shop data keep", "Secret shop a -",
        "Namespace - shop keep",
    )  # fmt: skip
    assert "password" not in addon.parts["objects"]


def test_hosts_get_a_table_of_what_verify_looks_for(tmp_path: Path) -> None:
    keys = (
        ", namespace: shop, verify: [{kind: CSIDriver, name: nfs.csi.k8s.io}, {kind:"
        " Certificate.cert-manager.io, name: web, namespace: own, condition: Ready}]"
    )
    path = write(tmp_path, item("ConfigMap"), keys=keys)
    project = load(Inputs(description=path, cache=Cache(tmp_path / "cache")))
    files = {file.path: file for file in make_addon_files(project.plan, project.plan.nodes[0])}
    table = files["rootfs/etc/kubernetes/site-addons/verify.tsv"]
    assert table.mode == 0o644
    assert [line.split("\t") for line in table.content.decode().splitlines()[2:]] == [
        ["web", "CSIDriver", "shop", "nfs.csi.k8s.io", "-"],
        ["web", "Certificate.cert-manager.io", "own", "web", "Ready"],
    ]
    path = write(tmp_path, item("ConfigMap"))
    project = load(Inputs(description=path, cache=Cache(tmp_path / "cache")))
    names = {file.path for file in make_addon_files(project.plan, project.plan.nodes[0])}
    assert "rootfs/etc/kubernetes/site-addons/verify.tsv" not in names


def test_pods_name_images_by_the_digest_of_the_lock_except_with_docker(tmp_path: Path) -> None:
    digests = {"docker.io/library/nginx:1.27": f"sha256:{'1' * 64}"}
    text = DEPLOYMENT + "        imagePullPolicy: Always\n"
    loaded = read(tmp_path, text)
    assert any("imagePullPolicy Always becomes IfNotPresent" in line for line in loaded.warnings)
    container = pod_of(plan(loaded, digests))["containers"][0]
    assert container["image"] == f"nginx:1.27@sha256:{'1' * 64}"
    assert container["imagePullPolicy"] == "IfNotPresent"
    docker = read(
        tmp_path, DEPLOYMENT.replace("nginx:1.27", f"nginx:1.27@sha256:{'2' * 64}"),
        version="1.20.2", more="runtime: {engine: docker, version: 20.10.24}\n",
    )  # fmt: skip
    assert pod_of(plan(docker))["containers"][0]["image"] == "nginx:1.27"


def pod_of(addons: Any) -> Any:
    (found,) = yaml.safe_load_all(addons[0].parts["objects"])
    return found["spec"]["template"]["spec"]


def test_texts_stay_as_they_are_and_dates_and_times_are_texts(tmp_path: Path) -> None:
    text = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  a: 2026-01-02\n  b: 12:30:45\n  c: "1e3"\n  d: |\n    x\n    \ty: "no"\n'
    (addon,) = plan(read(tmp_path, text))
    (found,) = yaml.safe_load_all(addon.parts["first"])
    assert found["data"] == {"a": "2026-01-02", "b": "12:30:45", "c": "1e3", "d": 'x\n\ty: "no"\n'}


def test_the_lock_has_the_files_of_add_ons_but_none_with_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, item("ConfigMap"), item("Secret", stringData={"a": "b"}, name="b"))
    project = load(Inputs(description=path, cache=Cache(tmp_path / "cache")))
    assert list(project.parts) == ["web/a.yaml"]
    files = {file.path.removeprefix("rootfs/etc/kubernetes/site-addons/"): file.mode
             for file in make_addon_files(project.plan, project.plan.nodes[0])}  # fmt: skip
    assert files == {
        "addons.tsv": 0o644, "web/3-first.yaml": 0o644, "web/4-secrets.yaml": 0o600, "web/objects.txt": 0o644,
    }  # fmt: skip
    assert not list(make_addon_files(project.plan, project.plan.nodes[1]))


def test_images_lists_each_with_its_places_and_what_is_not_proved(tmp_path: Path) -> None:
    path = write(tmp_path, DEPLOYMENT, ROLE)
    listed = CliRunner().invoke(app, ["images", "-c", str(path)])
    assert listed.exit_code == 0, listed.output
    assert (
        "docker.io/library/nginx:1.27\n"
        "    add-on web: web/a.yaml:10 Deployment/default/web spec.template.spec.containers[0].image (container)\n"
    ) in listed.output
    assert "[not proved]" in listed.output
    one = CliRunner().invoke(app, ["images", "-c", str(path), "--why", "nginx:1.27", "--json"])
    (image,) = read_shape(one.output, "images")["images"]
    assert (image["image"], image["proof"]) == ("docker.io/library/nginx:1.27", Proof.CARRIED)
    missing = CliRunner().invoke(app, ["images", "-c", str(path), "--why", "nginx:9"])
    assert missing.exit_code != 0


def test_a_kustomization_is_rendered_and_what_is_wrong_names_its_objects(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "web/kustomization.yaml").write_text("resources: [a.yaml]\n")
    with pytest.raises(ConfigError, match=r"web: no kubectl\. Fix: build on Linux"):
        load_cluster(path, render=render_nothing)
    loaded = load_cluster(path, render=lambda *_: DEPLOYMENT.encode())
    assert [each.title for each in loaded.addons.objects] == ["Deployment/default/web"]
    assert list(loaded.addons.digests) == ["web/kustomization.yaml (rendered)"]
    with pytest.raises(
        ConfigError, match=r"web/kustomization.yaml: Deployment/default/web: spec.template.spec"
    ):
        load_cluster(path, render=lambda *_: DEPLOYMENT.replace(":1.27", "").encode())


def test_kustomize_runs_without_network_home_and_other_programs(tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\n/usr/bin/env | /usr/bin/sort\necho "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    said = kustomize.run_kustomize(program, tmp_path, tmp_path).decode()
    assert f"HOME={tmp_path}\n" in said
    assert f"PATH={tmp_path}/none\n" in said
    assert "HTTPS_PROXY=http://127.0.0.1:9\n" in said
    assert said.endswith(f"kustomize {tmp_path}\n")
    program.write_text("#!/bin/sh\necho 'no such host' >&2; exit 1\n")
    with pytest.raises(BundlerError, match="kubectl kustomize: no such host") as caught:
        kustomize.run_kustomize(program, tmp_path, tmp_path)
    assert "copy remote resources" in str(caught.value.hint)


def test_without_a_kubectl_for_the_build_machine_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ArtifactError, match="there is none for Linux riscv64") as caught:
        find_machine(kustomize.NEED, kustomize.BY_HAND)
    assert "kubectl kustomize FOLDER > FILE.yaml" in str(caught.value.hint)
    cluster = read(tmp_path, item("ConfigMap"), version="1.36.999").cluster
    with pytest.raises(ArtifactError, match=r"kubectl 1.36.999 \(amd64\) .* has no built-in pin"):
        kustomize.find_kubectl(cluster, None, "amd64")
    assert kustomize.find_kubectl(read(tmp_path).cluster, None, "amd64")[0].component == "kubectl"


def test_the_kubectl_that_renders_is_exported_and_kept_with_the_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = write(tmp_path, item("ConfigMap"))
    project = load(Inputs(description=path, cache=Cache(tmp_path / "cache")))
    assert list_tools(project) == ()
    (tmp_path / "web/kustomization.yaml").write_text("resources: [a.yaml]\n")
    assert [tool.label for tool in list_tools(project)] == ["kubectl 1.36.4 (amd64)"]


DIFFER = (
    Path(__file__).parents[3]
    / "templates/control-plane/rootfs/opt/k8s/libexec/differing-objects.sh"
)


def test_drift_is_what_differs_apart_from_what_the_api_server_counts(tmp_path: Path) -> None:
    live, planned = tmp_path / "LIVE-1", tmp_path / "MERGED-1"
    for place, generation, size in ((live, 1, 1), (planned, 2, 2)):
        place.mkdir()
        head = f"metadata:\n  generation: {generation}\n  managedFields:\n  - manager: {size}\n    time: {size}\n  name: a\n"
        (place / "v1.ConfigMap.web.same").write_text(f"{head}data: x\n")
        (place / "v1.ConfigMap.web.other").write_text(f"{head}data: {size}\n")
    (live / "v1.ConfigMap.web.gone").touch()
    (planned / "v1.ConfigMap.web.gone").write_text("data: x\n")
    done = subprocess.run(
        ["sh", DIFFER, live, planned], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "v1.ConfigMap.web.gone missing\nv1.ConfigMap.web.other changed\n"
