"""A cluster with an add-on, from its lock to its bundles: the image is carried, locked and named by its digest."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.charts import make_files, write_folder, write_helm
from support.registries import MadeImage, Registry, make_layer, run_registry
from support.sboms import assert_valid
from support.small_builds import SmallSite, make_site, unpack

from bundler.bundle.layout import Media
from bundler.downloads import update_lock
from bundler.pipeline import build
from bundler.project import Inputs, check
from bundler.sources.images.options import RegistryOptions
from bundler.upgrade.addons import describe_addon
from bundler.upgrade.diff import compare_pair, pair_bundles
from bundler.upgrade.rollout import make_upgrade_plan

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - {{name: web, image: "{host}/team/app:1.0"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: key}}
stringData: {{password: hunter2}}
"""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with run_registry() as running:
        running.put("team/app", "1.0", MadeImage([make_layer("app", b"app")]))
        yield running


@pytest.fixture
def site(tmp_path: Path, registry: Registry) -> SmallSite:
    site = make_site(tmp_path / "site")
    description = site.directory / "cluster.yaml"
    description.write_text(
        description.read_text() + "addons: [{name: web, manifests: web, namespace: shop}]\n"
    )
    (site.directory / "web").mkdir()
    (site.directory / "web/web.yaml").write_text(WEB.format(host=registry.host))
    (site.directory / "web/more.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
    )
    return site


def with_registry(site: SmallSite, registry: Registry) -> Inputs:
    registries = RegistryOptions(insecure=frozenset({registry.host}))
    return dataclasses.replace(site.inputs, registries=registries)


def test_the_image_of_an_add_on_is_locked_carried_and_named_by_its_digest(
    site: SmallSite, registry: Registry, tmp_path: Path
) -> None:
    inputs = with_registry(site, registry)
    update_lock(inputs, ())
    lock = yaml.safe_load((site.directory / "cluster.lock.yaml").read_text())
    name = f"{registry.host}/team/app:1.0"
    (entry,) = (entry for entry in lock["entries"] if entry["name"] == name)
    assert list(lock["parts"]) == ["web/more.yaml"]
    for output in ("first", "second"):
        build(inputs, tmp_path / output)
    bundles = sorted(path.name for path in (tmp_path / "first").glob("*.tar.gz"))
    assert all(
        (tmp_path / "first" / each).read_bytes() == (tmp_path / "second" / each).read_bytes()
        for each in bundles
    )
    one = unpack(tmp_path / "first/small-one.tar.gz", tmp_path / "unpacked")
    addon = one / "rootfs/etc/kubernetes/site-addons/web"
    (deployment,) = yaml.safe_load_all((addon / "5-objects.yaml").read_text())
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"{name}@{entry['digest']}"
    assert (addon / "4-secrets.yaml").stat().st_mode & 0o777 == 0o600
    index = next((one / "rootfs/opt/k8s/images").glob("*team_app*/index.json"))
    annotated = json.loads(index.read_text())["manifests"]
    assert [m["annotations"]["io.containerd.image.name"] for m in annotated] == [
        name, f"{registry.host}/team/app@{entry['digest']}",
    ]  # fmt: skip
    rows = [line.split("\t") for line in (one / "lib/images.tsv").read_text().splitlines()]
    assert [row[1] for row in rows if "team_app" in row[0]] == [
        name, f"{registry.host}/team/app@{entry['digest']}",
    ]  # fmt: skip
    assert not any("@" in row[1] for row in rows if len(row) > 1 and "team_app" not in row[0])
    provenance = json.loads((one / "provenance.intoto.json").read_text())
    given = provenance["predicate"]["buildDefinition"]["externalParameters"]["inputs"]
    assert "web/more.yaml" in {each["name"] for each in given}
    sbom = json.loads((one / "sbom.cdx.json").read_text())
    assert any("team/app" in each["name"] for each in sbom["components"])
    build(inputs, tmp_path / "public", media=Media(public_only=True))
    public = unpack(tmp_path / "public/small-one.public.tar.gz", tmp_path / "unpacked")
    names = {path.name for path in (public / addon.relative_to(one)).iterdir()}
    assert "5-objects.yaml" in names
    assert "4-secrets.yaml" not in names
    two = unpack(tmp_path / "first/small-two.tar.gz", tmp_path / "unpacked")
    assert not (two / "rootfs/etc/kubernetes/site-addons").exists()
    assert list((two / "rootfs/opt/k8s/images").glob("*team_app*"))


def test_a_change_of_an_add_on_is_seen_by_lock_and_diff_and_secrets_stay_out(
    site: SmallSite, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = with_registry(site, registry)
    update_lock(inputs, ())
    build(inputs, tmp_path / "old")
    (site.directory / "web/more.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {x: new}}\n"
    )
    web = site.directory / "web/web.yaml"
    web.write_text(web.read_text().replace("hunter2", "hunter3"))
    capsys.readouterr()
    check(inputs)
    assert "web/more.yaml has changed since it was locked" in capsys.readouterr().err
    build(inputs, tmp_path / "new")
    found = [
        change
        for pair in pair_bundles(tmp_path / "old", tmp_path / "new")
        for change in compare_pair(pair, text=True)
        if "site-addons" in change.name
    ]
    (whole,) = (
        change
        for pair in pair_bundles(tmp_path / "old", tmp_path / "new")
        for change in compare_pair(pair)
        if change.section == "add-ons"
    )
    assert describe_addon(whole) == "add-on web changes: 1 object new, 1 deleted"
    assert list(make_upgrade_plan(tmp_path / "old", tmp_path / "new").addons) == [
        describe_addon(whole)
    ]
    assert {change.name.rpartition("/")[2] for change in found} == {
        "3-first.yaml",
        "4-secrets.yaml",
        "objects.txt",
    }
    assert "hunter" not in repr(found)
    assert any("x: new" in line for change in found for line in change.text)


def test_the_chart_of_an_add_on_is_in_sbom_provenance_lock_and_diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("bundler.sources.charts.render.SECOND", 0.0)
    site = make_site(tmp_path / "site")
    write_helm(site.directory / "mirror", site.directory / "pins.yaml")
    description = site.directory / "cluster.yaml"
    addons = [
        {"name": "web", "chart": {"path": "web"}, "values": ["values.yaml"], "namespace": "shop"},
        {"name": "plain", "manifests": "plain.yaml"},
    ]
    description.write_text(description.read_text() + yaml.safe_dump({"addons": addons}))
    (site.directory / "values.yaml").write_text("tag: '2'\n")
    (site.directory / "plain.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
    )
    job = "{apiVersion: batch/v1, kind: Job, metadata: {name: a, annotations: {helm.sh/hook: pre-install}}}\n"
    files = make_files(templates_hook=job)
    files.pop("templates/web.yaml")
    files["templates/map.yaml"] = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}}\n"
    write_folder(site.directory / "web", files)
    update_lock(site.inputs, ())
    lock = yaml.safe_load((site.directory / "cluster.lock.yaml").read_text())
    assert list(lock["parts"]) == [
        "chart web 1.2.3 of web (rendered)", "plain.yaml", "values.yaml", "web",
    ]  # fmt: skip
    build(site.inputs, tmp_path / "old")
    one = unpack(tmp_path / "old/small-one.tar.gz", tmp_path / "unpacked")
    sbom = (one / "sbom.cdx.json").read_bytes()
    assert_valid(sbom)
    found = {
        f"{each['name']} {each.get('version', '')}".strip(): [
            (part["name"], part.get("version"), part["hashes"][0]["content"])
            for part in each["components"]
        ]
        for each in json.loads(sbom)["components"]
        if {"name": "bundler:kind", "value": "addon"} in each["properties"]
    }
    assert found == {
        "plain": [("plain.yaml", None, lock["parts"]["plain.yaml"])],
        "web 1.2.3": [
            ("values.yaml", None, lock["parts"]["values.yaml"]),
            ("web", "1.2.3", lock["parts"]["web"]),
        ],
    }
    provenance = json.loads((one / "provenance.intoto.json").read_text())
    given = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "web 1.2.3", "digest": {"sha256": lock["parts"]["web"]}} in [
        {key: each[key] for key in ("name", "digest")} for each in given
    ]
    hooks = one / "rootfs/etc/kubernetes/site-addons/web/hooks"
    assert (hooks / "hooks.tsv").read_text().splitlines()[-1].split("\t") == [
        "001.yaml", "pre-install", "Job.batch", "shop", "a", "delete",
    ]  # fmt: skip
    write_folder(site.directory / "web", {"Chart.yaml": "{name: web, version: 1.3.0}\n"})
    build(site.inputs, tmp_path / "new")
    (change,) = (
        change
        for pair in pair_bundles(tmp_path / "old", tmp_path / "new")
        for change in compare_pair(pair)
        if change.section == "add-ons"
    )
    assert describe_addon(change) == "add-on web changes: chart web 1.2.3 → 1.3.0"
