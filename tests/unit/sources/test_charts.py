"""Helm charts as add-ons: found, locked, rendered twice, and what is refused."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from pysequoia import SignatureMode, Tsk, sign
from support.charts import make_files, pack_chart, write_folder, write_helm, write_repository
from support.descriptions import write_upstream
from support.registries import Registry, run_registry, sha256
from support.sigstore_instance import ISSUER_RAW, NOW, Sigstore, make_key

from bundler.cache.store import Cache
from bundler.cluster.addons.charts import ChartRequest, RenderedChart
from bundler.downloads import list_files, list_tools, update_lock
from bundler.errors import ArtifactError, ConfigError
from bundler.progress import DownloadProgress
from bundler.project import Inputs, Project, check, load, make_chart_options, resolve
from bundler.sources.charts.proposals import propose_charts
from bundler.sources.charts.registry import PACKAGE, PROVENANCE
from bundler.sources.charts.render import Renderer
from bundler.sources.images.options import RegistryOptions
from bundler.sources.lock import LockEntry, LockKind, TrustSource, lock_path, read_lock

HEAD = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {version: 1.36.4}
dns: {provider: none}
nodes:
  - {name: m1, address: 192.0.2.10, roles: [etcd, control-plane]}
"""
REPOSITORY = "https://charts.example/stable"
OF_REPOSITORY = {"repo": REPOSITORY, "name": "web", "version": "1.2.3"}
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: "{{ random or .Values.password }}"}
"""
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec: {group: example.com, scope: Namespaced, names: {kind: Gadget}, versions: [{name: v1}]}
"""


def hook(events: str, kind: str = "Job", name: str = "one", **annotations: str) -> str:
    given = {"helm.sh/hook": events} | {f"helm.sh/hook-{k}": v for k, v in annotations.items()}
    api = "batch/v1" if kind == "Job" else "v1"
    return yaml.safe_dump(
        {"apiVersion": api, "kind": kind, "metadata": {"name": name, "annotations": given}}
    )


@dataclasses.dataclass
class Site:
    """A cluster with one chart, a mirror, and a stand-in for Helm."""

    directory: Path
    inputs: Inputs

    def write(self, chart: dict[str, Any], **more: Any) -> None:
        addon = {"name": "web", "chart": chart, "namespace": "shop"}
        keys = {key: more.pop(key) for key in ("upstream_keys",) if key in more}
        text = yaml.safe_dump({"addons": [addon | more], **keys})
        self.inputs.description.write_text(HEAD + text)

    def load(self, **options: Any) -> Project:
        return load(self.inputs, quiet=True, **options)

    def faults(self) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return [line.partition(" addons[0].")[2] for line in caught.value.message.splitlines()]

    def entry(self) -> LockEntry:
        found = read_lock(lock_path(self.inputs.description)).find(LockKind.CHART, "web", "all")
        assert found
        return found


@pytest.fixture(autouse=True)
def on_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("bundler.sources.charts.render.SECOND", 0.0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    description = tmp_path / "cluster.yaml"
    description.write_text(HEAD)
    pins = write_upstream(tmp_path, description)
    write_helm(tmp_path / "mirror", pins)
    inputs = Inputs(
        description=description, cache=Cache(tmp_path / "cache"), pins=pins, offline=True,
        mirrors=(str(tmp_path / "mirror"),),
    )  # fmt: skip
    return Site(directory=tmp_path, inputs=inputs)


def publish(site: Site, *, version: str = "1.2.3", digests: bool = True, **files: str) -> bytes:
    content = pack_chart(make_files(version=version, **files))
    folder = site.directory / "mirror/charts.example/stable"
    write_repository(folder, ("web", version, content), digests=digests)
    return content


# what is rendered


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_chart_of_a_path_is_rendered_with_its_values_and_its_images_are_found(
    site: Site, is_folder: bool
) -> None:
    files = make_files(crds_gadget=CRD)
    files["Chart.yaml"] += (
        "annotations: {helm.sh/images: '- {name: tool, image: \"quay.io/team/tool:2\"}'}\n"
    )
    path = site.directory / "web"
    if is_folder:
        write_folder(path, files)
    else:
        path = site.directory / "web.tgz"
        path.write_bytes(pack_chart(files))
    (site.directory / "one.yaml").write_text("tag: '1.1'\n")
    (site.directory / "two.yaml").write_text("tag: '1.2'\n")
    site.write({"path": path.name}, values=["one.yaml", "two.yaml"])
    project = site.load()
    refs = {image.ref for image in project.cluster.images if image.use == "addon"}
    assert refs == {"quay.io/team/web:1.2", "quay.io/team/tool:2"}
    (addon,) = project.plan.addons
    assert list(addon.parts) == ["namespaces", "crds", "objects"]
    places = {use.place for use in project.image_uses if use.addon}
    assert places == {
        "web/templates/web.yaml Deployment/shop/web spec.template.spec.containers[0].image",
        "web/Chart.yaml Chart/web metadata.annotations.helm.sh/images",
    }
    assert set(project.parts) == {
        path.name, "one.yaml", "two.yaml", "chart web 1.2.3 of web (rendered)",
    }  # fmt: skip
    site.write({"path": path.name}, values=["one.yaml"], set={"tag": "1.3"})
    refs = {image.ref for image in site.load().cluster.images if image.use == "addon"}
    assert "quay.io/team/web:1.3" in refs


def test_a_random_value_is_refused_with_its_place_and_the_value_to_set(site: Site) -> None:
    write_folder(site.directory / "web", make_files(templates_secret=SECRET))
    site.write({"path": "web"})
    (fault,) = site.faults()
    assert fault == (
        "chart: web/templates/secret.yaml: Secret/key: stringData.password: another value each time"
        " it is rendered. Fix: set password in the add-on's values"
    )
    site.write({"path": "web"}, set={"password": "s3cret"})
    project = site.load()
    assert "secrets" in project.plan.addons[0].parts
    # of a chart with Secrets only the chart's own digest is in the lock: values may be passwords
    assert set(project.parts) == {"web"}


def test_a_chart_is_rendered_again_only_when_something_of_it_changes(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(site.directory / "web", make_files())
    told = []
    for values, files in (
        ({}, {}),
        ({}, {}),
        ({"tag": "2"}, {}),
        ({"tag": "2"}, {"templates/b.yaml": "# b\n"}),
        ({"tag": "2"}, {"templates/b.yaml": "# b\n"}),
    ):
        write_folder(site.directory / "web", files)
        site.write({"path": "web"}, set=values)
        assert site.load().plan.addons[0].parts
        told.append("rendering chart web" in capsys.readouterr().err)
    assert told == [True, False, True, True, False]


def test_a_random_value_that_no_value_replaces_has_no_invented_hint(site: Site) -> None:
    text = SECRET.replace(" or .Values.password", "")
    write_folder(site.directory / "web", make_files(templates_secret=text))
    site.write({"path": "web"})
    (fault,) = site.faults()
    assert fault.endswith("Fix: find the value that replaces it in the chart's documentation, often"
                          " one with the name of an existing Secret, and set it in the add-on's values")  # fmt: skip


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (["none.yaml"], "values[0]: {}/none.yaml: No such file or directory"),
        (["list.yaml"], "values[0]: list.yaml: must be one mapping of values"),
        (["bad.yaml"], "values[0]: bad.yaml:2:1: duplicate key a, first in line 1: keep one"),
    ],
)
def test_values_that_cannot_be_read_are_named(site: Site, values: list[str], fault: str) -> None:
    write_folder(site.directory / "web", make_files())
    (site.directory / "list.yaml").write_text("- a\n")
    (site.directory / "bad.yaml").write_text("a: 1\na: 2\n")
    site.write({"path": "web"}, values=values)
    assert site.faults() == [fault.format(site.directory)]


def test_a_value_that_the_chart_does_not_have_is_a_warning(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_files()
    files["values.yaml"] += "controller: {replicaCount: 1}\n"
    files["charts/redis/Chart.yaml"] = "name: redis\nversion: 1.0.0\n"
    write_folder(site.directory / "web", files)
    site.write(
        {"path": "web"},
        set={"tga": 1, "global": {}, "redis": {"a": 1}, "controller": {"replicacount": 2, "x": 1}},
    )
    load(site.inputs)
    told = [line for line in capsys.readouterr().err.splitlines() if "has no value" in line]
    assert [line.partition(".values: ")[2] for line in told] == [
        "set: web has no value tga; did you mean 'tag'?",
        "set: web has no value controller.replicacount; did you mean 'replicaCount'?",
    ]


def test_what_helm_refuses_is_said_with_the_chart(site: Site) -> None:
    text = "# {{ fail chart requires kubeVersion: >=1.99.0 which is incompatible }}\n"
    write_folder(site.directory / "web", make_files(templates_no=text))
    site.write({"path": "web"})
    (fault,) = site.faults()
    assert fault == (
        "chart: web: helm template: Error: chart requires kubeVersion: >=1.99.0 which is"
        " incompatible. Fix: choose a version of the chart for the cluster's Kubernetes version"
    )


@pytest.mark.parametrize(
    ("chart", "more", "fault"),
    [
        ({"repo": REPOSITORY, "name": "web"}, {}, "chart: needs repo, name and version, or a path"),
        ({"path": "web", "version": "1.2.3"}, {}, "chart: give either path, or repo, name and version"),
        (OF_REPOSITORY | {"version": "1.x"}, {}, "chart.version: must be one full version, no range, such as 4.13.2, found '1.x'"),
        (OF_REPOSITORY | {"repo": "oci://u:p@a.example/x"}, {}, "chart.repo: must have no name and password: log in with docker login"),
        (OF_REPOSITORY | {"nmae": "x"}, {}, "chart.nmae: unknown key; did you mean 'name'?"),
    ],
)  # fmt: skip
def test_a_chart_that_is_described_wrongly_is_refused(
    site: Site, chart: dict[str, str], more: dict[str, Any], fault: str
) -> None:
    site.write(chart, **more)
    assert any(found.startswith(fault.partition(", found")[0]) for found in site.faults()), (
        site.faults()
    )


def test_a_package_that_leads_out_of_its_folder_is_refused(site: Site) -> None:
    (site.directory / "web.tgz").write_bytes(pack_chart({"../../x": "a", **make_files()}))
    site.write({"path": "web.tgz"})
    (fault,) = site.faults()
    assert "web.tgz: not a package of a chart: 'web/../../x' is a path with .." in fault


# hooks


def test_hooks_are_sorted_by_weight_and_tests_are_left_out(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_files(
        templates_a=hook("pre-install,pre-upgrade", name="late", weight="5"),
        templates_b=hook("post-install, test", kind="ConfigMap", name="settings", **{"delete-policy": "hook-succeeded"}),
        templates_c=hook("test", kind="Pod", name="try"),
        templates_d=hook("pre-install", name="early", weight="-1", **{"delete-policy": "hook-succeeded,before-hook-creation"}),
    )  # fmt: skip
    write_folder(site.directory / "web", files)
    site.write({"path": "web"})
    (addon,) = load(site.inputs).plan.addons
    assert [(each.events, each.words[2], each.marks) for each in addon.hooks] == [
        (("pre-install",), "early", "delete,end"),
        (("post-install",), "settings", "end"),
        (("pre-install", "pre-upgrade"), "late", "delete"),
    ]
    assert "web/templates/c.yaml: Pod/shop/try: it is a test, and is left out" in (
        capsys.readouterr().err
    )
    assert addon.objects[:3] == (
        "Job.batch shop late hook", "ConfigMap shop settings hook", "Job.batch shop early hook",
    )  # fmt: skip
    assert "early" not in "".join(addon.parts.values())


def test_hooks_of_deletions_and_rollbacks_are_refused_until_they_are_confirmed(site: Site) -> None:
    files = make_files(
        templates_a=hook("pre-delete", name="bye"), templates_b=hook("post-rollback,post-install")
    )
    write_folder(site.directory / "web", files)
    site.write({"path": "web"})
    assert site.faults() == [
        f"chart: web/templates/{file}.yaml: Job/shop/{name}: bundler does not run {event} hooks: turn it off with a value"
        f" of the chart, or confirm that you do without it with hooks_not_needed: [Job/shop/{name}]"
        for file, name, event in (("a", "bye", "pre-delete"), ("b", "one", "post-rollback"))
    ]  # fmt: skip
    site.write({"path": "web", "hooks_not_needed": ["Job/shop/bye", "Job/shop/one"]})
    (addon,) = site.load().plan.addons
    assert [(each.events, each.words[2]) for each in addon.hooks] == [(("post-install",), "one")]


def test_a_hook_with_unknown_annotations_is_refused(site: Site) -> None:
    write_folder(
        site.directory / "web",
        make_files(templates_a=hook("pre-instal", weight="x", **{"delete-policy": "never"})),
    )
    site.write({"path": "web"})
    found = [fault.partition("one: ")[2].partition(";")[0] for fault in site.faults()]
    assert [fault for fault in found if fault] == [
        "helm.sh/hook-delete-policy is never",
        "helm.sh/hook-weight must be a whole number in quotes",
        "unknown hook pre-instal",
    ]


def test_what_the_chart_wants_to_keep_stays(site: Site) -> None:
    text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, annotations: {helm.sh/resource-policy: keep}}}\n"
    write_folder(site.directory / "web", make_files(templates_a=text))
    site.write({"path": "web"})
    assert "ConfigMap shop a stay" in site.load().plan.addons[0].objects


def test_a_chart_gets_the_apis_of_the_add_ons_that_it_needs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(site.directory / "base", make_files("base", crds_gadget=CRD))
    write_folder(site.directory / "web", make_files())
    addons = [
        {"name": "web", "chart": {"path": "web"}, "needs": ["base"]},
        {"name": "base", "chart": {"path": "base"}},
    ]
    site.inputs.description.write_text(HEAD + yaml.safe_dump({"addons": addons}))
    seen: dict[str, set[str]] = {}
    render = Renderer.render

    def record(self: Renderer, request: ChartRequest) -> RenderedChart:
        seen[request.addon.name] = set(request.apis)
        return render(self, request)

    monkeypatch.setattr(Renderer, "render", record)
    site.load()
    assert {"apps/v1", "apps/v1/Deployment"} <= seen["base"]
    assert seen["web"] - seen["base"] == {"example.com/v1", "example.com/v1/Gadget"}


# repositories and the lock


def test_a_chart_is_locked_by_the_digest_of_the_index_and_not_downloaded_again(site: Site) -> None:
    content = publish(site)
    site.write(OF_REPOSITORY)
    update_lock(site.inputs, ())
    entry = site.entry()
    assert entry.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (entry.origin, entry.evidence) == (
        TrustSource.UPSTREAM_CHECKSUM, f"{REPOSITORY}/index.yaml",
    )  # fmt: skip
    assert (entry.version, entry.repository) == ("1.2.3", f"{REPOSITORY}/web")
    assert entry.url == f"{REPOSITORY}/web-1.2.3.tgz"
    project = check(site.inputs)
    names = [file.label for file in list_files(project, resolve(project))]
    assert "chart web 1.2.3 (all)" in names
    assert [tool.label for tool in list_tools(project)] == ["helm 4.2.3 (amd64)"]
    for path in (site.directory / "mirror/charts.example/stable").iterdir():
        path.unlink()
    check(site.inputs)
    update_lock(site.inputs, ())


def test_another_package_under_the_same_version_is_refused_until_the_lock_is_updated(
    site: Site,
) -> None:
    publish(site)
    site.write(OF_REPOSITORY)
    update_lock(site.inputs, ())
    locked = site.entry()
    publish(site, templates_b="# new\n")
    assert site.load().charts["web"].digest == locked.digest.partition(":")[2]
    empty = dataclasses.replace(site.inputs, cache=Cache(site.directory / "other"))
    with pytest.raises(ConfigError, match="web 1.2.3.* does not match its pin"):
        check(empty)
    update_lock(site.inputs, ())
    assert site.entry() == locked
    update_lock(site.inputs, ("web",))
    assert site.entry().digest != locked.digest
    check(empty)


def test_another_version_in_cluster_yaml_is_drift(site: Site) -> None:
    publish(site)
    site.write(OF_REPOSITORY)
    update_lock(site.inputs, ())
    publish(site, version="1.3.0")
    site.write(OF_REPOSITORY | {"version": "1.3.0"})
    with pytest.raises(ArtifactError, match=r"the chart of add-on web is locked as 1\.2\.3") as why:
        check(site.inputs)
    assert str(why.value.hint).endswith("bundler lock --update web")
    with pytest.raises(ArtifactError, match=r"web \(all\) is locked as 1\.2\.3, but 1\.3\.0"):
        update_lock(site.inputs, ())
    update_lock(site.inputs, ("web",))
    assert site.entry().version == "1.3.0"
    check(site.inputs)


def test_a_chart_that_the_lock_does_not_have_is_named(site: Site) -> None:
    update_lock(site.inputs, ())
    publish(site)
    site.write(OF_REPOSITORY)
    with pytest.raises(ArtifactError, match="the chart of add-on web is missing in the lock"):
        check(site.inputs)


def test_a_digest_that_the_user_states_must_be_that_of_the_index(site: Site) -> None:
    content = publish(site)
    site.write(OF_REPOSITORY | {"sha256": "0" * 64})
    (fault,) = site.faults()
    assert f"states the digest sha256:{hashlib.sha256(content).hexdigest()}, and cluster.yaml sha256:000" in fault  # fmt: skip
    site.write(OF_REPOSITORY | {"sha256": hashlib.sha256(content).hexdigest()})
    update_lock(site.inputs, ())
    assert site.entry().origin is TrustSource.USER


def test_a_repository_without_digests_is_trusted_once_and_strict_refuses_it(site: Site) -> None:
    publish(site, digests=False)
    site.write(OF_REPOSITORY)
    update_lock(site.inputs, ())
    assert site.entry().origin is TrustSource.FIRST_USE
    with pytest.raises(ArtifactError, match="web 1.2.3 .* only seen on first use"):
        check(dataclasses.replace(site.inputs, strict=True))


def test_an_unknown_chart_or_version_lists_those_that_exist(site: Site) -> None:
    publish(site)
    site.write(OF_REPOSITORY | {"version": "9.9.9"})
    assert site.faults()[0].endswith("web has no version 9.9.9. Fix: it has: 1.2.3")
    site.write(OF_REPOSITORY | {"name": "wbe"})
    assert site.faults()[0].endswith("has no chart wbe. Fix: it has: web")


def test_a_chart_that_is_not_in_the_cache_is_named_offline(site: Site) -> None:
    publish(site)
    site.write(OF_REPOSITORY)
    update_lock(site.inputs, ())
    (site.directory / "mirror/charts.example/stable/web-1.2.3.tgz").unlink()
    empty = dataclasses.replace(site.inputs, cache=Cache(site.directory / "other"))
    with pytest.raises(
        ConfigError, match="chart web 1.2.3 of add-on web is not in the cache"
    ) as why:
        check(empty)
    assert "bundler cache export" in why.value.message


# registries


@pytest.fixture
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        yield running


def push(registry: Registry, content: bytes, *more: tuple[str, bytes], tag: str = "1.2.3") -> str:
    """Push a chart; returns the digest of its manifest."""
    config = b"{}"
    layers = ((PACKAGE, content), *more)
    registry.blobs |= {sha256(blob): blob for blob in (config, *(blob for _, blob in layers))}
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": sha256(config), "size": 2},
        "layers": [{"mediaType": kind, "digest": sha256(blob), "size": len(blob)} for kind, blob in layers],
    }  # fmt: skip
    return put_manifest(registry, tag, manifest)


def put_manifest(registry: Registry, tag: str, manifest: dict[str, Any]) -> str:
    kind = "application/vnd.oci.image.manifest.v1+json"
    document = json.dumps(manifest | {"mediaType": kind}).encode()
    for name in (tag, sha256(document)):
        registry.manifests[f"charts/web/{name}"] = (kind, document)
    return sha256(document)


def use_registry(site: Site, registry: Registry, **more: Any) -> None:
    registries = RegistryOptions(insecure=frozenset({registry.host}))
    site.inputs = dataclasses.replace(site.inputs, offline=False, registries=registries)
    chart = {"repo": f"oci://{registry.host}/charts", "name": "web", "version": "1.2.3"}
    site.write(chart, **more)


def test_a_chart_of_a_registry_is_locked_with_its_manifest_and_fetched_once(
    site: Site, registry: Registry
) -> None:
    content = pack_chart(make_files())
    manifest = push(registry, content)
    use_registry(site, registry)
    # images of the chart cannot be pulled here: the lock gets the chart alone
    project = site.load()
    found = project.charts["web"]
    assert (found.digest, found.manifest) == (hashlib.sha256(content).hexdigest(), manifest)
    assert found.url == f"https://{registry.host}/v2/charts/web/manifests/1.2.3"
    requests = len(registry.requests)
    site.load()
    assert len(registry.requests) == requests
    site.inputs = dataclasses.replace(site.inputs, offline=True)
    site.load()
    registry.blobs[sha256(content)] = content + b"x"
    other = dataclasses.replace(site.inputs, offline=False, cache=Cache(site.directory / "other"))
    with pytest.raises(ConfigError, match="web 1.2.3 .* does not match its pin"):
        load(other)


def test_something_else_than_a_chart_in_a_registry_is_refused(
    site: Site, registry: Registry
) -> None:
    put_manifest(registry, "1.2.3", {"schemaVersion": 2, "config": {}, "layers": []})
    use_registry(site, registry)
    assert "web:1.2.3 is no Helm chart" in site.faults()[0]


# signatures


def sign_chart(key: Tsk, content: bytes) -> bytes:
    text = f"apiVersion: v2\nname: web\nversion: 1.2.3\n\n...\nfiles:\n  web-1.2.3.tgz: {sha256(content)}\n"
    return bytes(sign(key.signer(), text.encode(), mode=SignatureMode.CLEAR))


def test_the_provenance_file_of_a_chart_is_checked_by_the_lock(site: Site) -> None:
    content = publish(site)
    key, other = Tsk.generate("web <web@example.org>"), Tsk.generate("other <o@example.org>")
    (site.directory / "key.asc").write_text(str(key.extract_certificate()))
    trusted = {"upstream_keys": {"addons/web": {"openpgp": "key.asc"}}}
    site.write(OF_REPOSITORY, **trusted)
    prov = site.directory / "mirror/charts.example/stable/web-1.2.3.tgz.prov"
    with pytest.raises(ArtifactError, match="requires a signature, and without a lock"):
        check(site.inputs)
    with pytest.raises(ArtifactError, match=r"there is none at https://.*\.tgz\.prov"):
        update_lock(site.inputs, ())
    prov.write_bytes(sign_chart(other, content))
    with pytest.raises(ArtifactError, match="the signature is not valid"):
        update_lock(site.inputs, ())
    prov.write_bytes(sign_chart(key, content + b"other"))
    with pytest.raises(ArtifactError, match="the signature is not valid: it is of sha256:"):
        update_lock(site.inputs, ())
    prov.write_bytes(sign_chart(key, content))
    update_lock(site.inputs, ())
    entry = site.entry()
    assert entry.origin is TrustSource.UPSTREAM_SIGNATURE
    assert entry.evidence.startswith(f"OpenPGP {key.extract_certificate().fingerprint}: ")
    check(site.inputs)
    (site.directory / "key.asc").write_text(str(other.extract_certificate()))
    with pytest.raises(ArtifactError, match="but upstream_keys now requires openpgp"):
        check(site.inputs)


def test_a_provenance_layer_of_a_registry_is_checked_too(site: Site, registry: Registry) -> None:
    content = pack_chart(make_files())
    key = Tsk.generate("web <web@example.org>")
    (site.directory / "key.asc").write_text(str(key.extract_certificate()))
    push(registry, content, (PROVENANCE, sign_chart(key, content)))
    trusted = {"upstream_keys": {"addons/web": {"openpgp": "key.asc"}}}
    use_registry(site, registry, **trusted)
    assert propose(site).origin is TrustSource.UPSTREAM_SIGNATURE


def propose(site: Site) -> LockEntry:
    """The entry of the chart alone: images cannot be pulled here."""
    project = site.load(locking=(), unproved=True)
    with DownloadProgress() as progress:
        options = make_chart_options(site.inputs, progress, None, ())
        (proposal,) = propose_charts(project.cluster, project.charts, options, datetime.now(UTC))
        return proposal.make_entry()


def test_the_cosign_signature_of_a_chart_must_be_of_its_manifest_and_signer(
    site: Site, registry: Registry
) -> None:
    content = pack_chart(make_files())
    manifest = push(registry, content)
    sigstore, leaf_key = Sigstore(), make_key()
    ca = sigstore.authority_certificate()
    (site.directory / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    identity, issuer = "release@web.example", "https://login.example"
    key = {"cosign": "ca.pem", "identity": identity, "issuer": issuer}
    use_registry(site, registry, upstream_keys={"addons/web": key})
    leaf = make_leaf(sigstore, leaf_key, identity, issuer)

    def put(digest: str, signer: ec.EllipticCurvePrivateKey) -> None:
        payload = json.dumps({"critical": {"image": {"docker-manifest-digest": digest}}}).encode()
        signature = base64.b64encode(signer.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
        registry.blobs[sha256(payload)] = payload
        layer = {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": sha256(payload),
            "annotations": {
                "dev.cosignproject.cosign/signature": signature,
                "dev.sigstore.cosign/certificate": leaf.public_bytes(Encoding.PEM).decode(),
            },
        }  # fmt: skip
        put_manifest(registry, f"{manifest.replace(':', '-')}.sig", {"layers": [layer]})

    with pytest.raises(ArtifactError, match="requires a signature, but there is none"):
        propose(site)
    put(manifest, make_key())
    with pytest.raises(ArtifactError, match="not made by the key of its certificate"):
        propose(site)
    put(sha256(b"other"), leaf_key)
    with pytest.raises(ArtifactError, match="it is of sha256:.*, and the chart is sha256:"):
        propose(site)
    put(manifest, leaf_key)
    entry = propose(site)
    assert (entry.origin, entry.index) == (TrustSource.UPSTREAM_SIGNATURE, manifest)
    assert entry.evidence.startswith(f"cosign {identity}: ")


def make_leaf(
    sigstore: Sigstore, key: ec.EllipticCurvePrivateKey, identity: str, issuer: str
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(sigstore.authority_name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(minutes=10))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.UnrecognizedExtension(ISSUER_RAW, issuer.encode()), critical=False)
        .sign(sigstore.ca, hashes.SHA256())
    )


@pytest.mark.parametrize(
    ("name", "key", "fault"),
    [
        ("addons/wbe", {"openpgp": "key.asc"}, "there is no such add-on with a chart of a repository"),
        ("addons/web", {"sigstore": "key.asc"}, "charts are checked with openpgp"),
        ("addons/web", {"cosign": "key.asc"}, "cosign signs charts in registries"),
        ("helm", {"openpgp": "key.asc"}, "it is a program of the build"),
    ],
)  # fmt: skip
def test_keys_that_no_chart_can_be_checked_with_are_refused(
    site: Site, name: str, key: dict[str, str], fault: str
) -> None:
    publish(site)
    (site.directory / "key.asc").write_text("x")
    site.write(OF_REPOSITORY, upstream_keys={name: key})
    with pytest.raises(ConfigError, match=fault):
        site.load()
