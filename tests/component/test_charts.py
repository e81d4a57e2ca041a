"""Charts with the real Helm, and on a real API server: definitions, hooks, random values, an upgrade."""

import json
import os
import platform
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.addon_site import (
    DEFINITION,
    MAPS,
    UNIT,
    Site,
    apply,
    end_job,
    exists,
    read_states,
)
from support.charts import find_helm, make_files, pack_chart, write_folder, write_helm
from support.descriptions import write_upstream
from support.external_ca_cluster import find_programs
from support.join_cluster import Build, Client, run_control_plane
from support.known_addons import find_sources
from support.paths import TEMPLATES
from support.unit_users import IDS

from bundler.cache.store import Cache
from bundler.cluster.known_addons import list_known, make_keys
from bundler.downloads import fetch
from bundler.errors import ConfigError
from bundler.progress import DownloadProgress
from bundler.project import Inputs, Project, load, make_chart_options
from bundler.sources.charts.render import Renderer

HEAD = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {version: 1.36.4}
dns: {provider: none}
nodes:
  - {name: m1, address: 192.0.2.10, roles: [etcd, control-plane]}
"""
HELPERS = """\
{{- define "web.password" -}}
{{- default (randAlphaNum 16) .Values.auth.password -}}
{{- end -}}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}-auth}
stringData: {password: {{ include "web.password" . | quote }}}
"""
SETTINGS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-settings}
data:
  kubernetes: {{ .Capabilities.KubeVersion.Version | quote }}
  gadgets: {{ .Capabilities.APIVersions.Has "example.com/v1/Gadget" | quote }}
  namespace: {{ .Release.Namespace }}
  address: {{ getHostByName "get.helm.sh" | quote }}
  tag: {{ .Values.tag | quote }}
"""
CRD = yaml.safe_dump(DEFINITION)
GADGET = """\
apiVersion: example.com/v1
kind: Gadget
metadata: {name: {{ .Release.Name }}}
spec: {image: "quay.io/team/gadget:{{ .Values.tag }}"}
"""
HOOK = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: "-5"
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: a, image: "quay.io/team/migrate:{{ .Values.tag }}"}]
"""
SECRET_HOOK = """\
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}-hook
  annotations: {helm.sh/hook: post-install}
stringData: {password: s3cret}
"""
VALUES = "tag: '1.0'\nauth: {password: ''}\n"


def make_chart(**files: str) -> dict[str, str]:
    made = make_files(
        crds_gadget=CRD, templates_gadget=GADGET, templates_hook=HOOK, templates_settings=SETTINGS
    )
    made.pop("templates/web.yaml")
    return made | {"values.yaml": VALUES} | files


@dataclass
class Place:
    """A cluster.yaml, a mirror with Helm, and a cache that has it."""

    inputs: Inputs

    @property
    def directory(self) -> Path:
        return self.inputs.description.parent

    def load(self, files: dict[str, str], **keys: Any) -> Project:
        (self.directory / "web.tgz").write_bytes(pack_chart(files))
        addon = {"name": "web", "chart": {"path": "web.tgz"}, "namespace": "shop", **keys}
        self.inputs.description.write_text(HEAD + yaml.safe_dump({"addons": [addon]}))
        return load(self.inputs, quiet=True)

    def fault(self, files: dict[str, str], **keys: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(files, **keys)
        return caught.value.message.partition(" addons[0].")[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if platform.machine() != "x86_64":
        pytest.skip("charts cannot be rendered by Helm: the package of PyPI has it for x86-64 only")
    directory = tmp_path_factory.mktemp("charts")
    description = directory / "cluster.yaml"
    description.write_text(HEAD)
    pins = write_upstream(directory, description)
    write_helm(directory / "mirror", pins, find_helm())
    inputs = Inputs(
        description=description, cache=Cache(directory / "cache"), pins=pins, offline=True,
        mirrors=(str(directory / "mirror"),),
    )  # fmt: skip
    fetch(inputs)
    return Place(inputs)


def test_helm_renders_for_the_clusters_version_without_a_network(place: Place) -> None:
    project = place.load(make_chart())
    (addon,) = project.plan.addons
    assert list(addon.parts) == ["namespaces", "crds", "first", "objects"]
    assert yaml.safe_load(addon.parts["first"])["data"] == {
        "kubernetes": "v1.36.4", "gadgets": "false", "namespace": "shop", "address": "", "tag": "1.0",
    }  # fmt: skip
    assert {image.ref for image in project.cluster.images if image.use == "addon"} == {
        "quay.io/team/gadget:1.0", "quay.io/team/migrate:1.0",
    }  # fmt: skip
    assert [(each.events, each.words) for each in addon.hooks] == [
        (("pre-install", "pre-upgrade"), ("Job.batch", "shop", "web-migrate"))
    ]


def test_random_values_in_named_templates_are_found_with_the_value_to_set(place: Place) -> None:
    chart = make_chart(**{"templates/_helpers.tpl": HELPERS, "templates/secret.yaml": SECRET})
    assert place.fault(chart) == (
        "chart: web/templates/secret.yaml: Secret/web-auth: stringData.password: another value each"
        " time it is rendered. Fix: set auth.password in the add-on's values"
    )
    place.load(chart, set={"auth": {"password": "s3cret"}})


def test_a_day_in_a_template_is_found_although_both_renderings_are_of_one_day(place: Place) -> None:
    text = '{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {day: "{{ now | date "2006-01-02" }}"}}\n'
    assert place.fault(make_chart(**{"templates/day.yaml": text})).startswith(
        "chart: web/templates/day.yaml: ConfigMap/a: data.day: another value each time"
    )


def test_what_helm_refuses_is_named_with_the_fix(place: Place) -> None:
    chart = make_chart()
    chart["Chart.yaml"] += 'kubeVersion: ">=1.99.0"\n'
    fault = place.fault(chart)
    assert "chart requires kubeVersion: >=1.99.0 which is incompatible with Kubernetes v1.36.4" in fault  # fmt: skip
    assert fault.endswith("choose a version of the chart for the cluster's Kubernetes version")
    chart = make_chart()
    chart["Chart.yaml"] += "dependencies: [{name: redis, version: 1.0.0, repository: 'https://charts.example'}]\n"  # fmt: skip
    fault = place.fault(chart)
    assert "missing in charts/ directory: redis" in fault
    assert "nothing is fetched: run helm dependency build" in fault
    schema = {"values.schema.json": '{"properties": {"tag": {"type": "string"}}}'}
    assert "got number, want string" in place.fault(make_chart(**schema), set={"tag": 2})


# on an API server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, place: Place) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    site = Site(directory, find_programs(directory / "bin"))
    with DownloadProgress() as progress:
        options = make_chart_options(place.inputs, progress, None)
        assert place.inputs.pins
        pins = json.loads(place.inputs.pins.read_text())["artifacts"]
        site.builder.more["artifacts"] = {"helm/amd64": pins["helm/amd64"]}
        site.builder.charts = Renderer(base=directory, options=options).render
        with run_control_plane(site.first):
            site.first.join("w1")
            yield site


@pytest.mark.long
def test_a_chart_is_installed_and_upgraded_with_its_hook_each_time(site: Site) -> None:
    admin = Client.read(site.first.root("cp1") / "etc/kubernetes/admin.kubeconfig")
    folder = site.builder.directory / "web"
    write_folder(folder, make_chart())
    keys = {"namespace": "web"}
    gadget = "/apis/example.com/v1/namespaces/web/gadgets/web"
    seen = []
    for tag in ("1.0", "1.1"):
        build = site.build(web=(folder, {**keys, "set": {"tag": tag}}))
        site.first.register("w1")
        apply(build, code=3)
        former = [] if tag == "1.0" else ["1.0"]
        assert [admin.send("GET", f"{MAPS}/web-settings").body.get("data", {}).get("tag")] == (
            former or [None]
        )
        seen.append(end_job(admin, "web-migrate"))
        apply(build)
        assert read_states(build) == {"web": "ready "}
        assert admin.send("GET", f"{MAPS}/web-settings").body["data"]["tag"] == tag
        assert (
            admin.send("GET", gadget).body["spec"]["image"].startswith(f"quay.io/team/gadget:{tag}")
        )
    assert len(set(seen)) == 2
    apply(site.build())
    assert not exists(admin, "/apis/batch/v1/namespaces/web/jobs/web-migrate")
    assert exists(admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gadgets.example.com")  # fmt: skip


@pytest.mark.parametrize("name", ["local-path", "nvidia-device-plugin"])
def test_a_known_add_on_is_applied_and_its_verify_is_compared(
    site: Site, tmp_path: Path, name: str
) -> None:
    """Those that support the lab's Kubernetes 1.20; their charts are fetched by hand."""
    (known,) = (each for each in list_known() if each.name == name)
    release = known.find_release("1.20")
    assert release
    sources = find_sources(known, release)
    made = make_keys(known, release)
    site.builder.more |= {
        key: value for key, value in made.items() if key not in {"addons", "images", "runtime"}
    }
    (addon,) = made["addons"]
    keys = {
        key: value
        for key, value in addon.items()
        if key in {"namespace", "set", "needs", "wait", "verify"}
    }
    build = site.build(**{name: (sources[name], keys)})
    site.first.register("w1")
    try:
        apply(build, code=3)  # nothing runs its pods
        (state,) = read_states(build).values()
        assert state.partition(" ")[0] in {"applying", "waiting"}
        assert compare_verify(build, name, tmp_path) == (
            [] if name == "local-path" else ["RuntimeClass"]
        )
    finally:
        site.builder.more.pop("images_not_needed", None)
        apply(site.build())
    if name == "local-path":
        assert compare_verify(build, name, tmp_path) == ["StorageClass"]


def compare_verify(build: Build, name: str, directory: Path) -> list[str]:
    """The kinds that verify.sh misses on the API server, with the real kubectl."""
    script = directory / "verify.sh"
    script.write_text(
        f"""prefix={build.root("cp1")}
. {TEMPLATES}/common/lib/verify/add-ons.sh
kube() {{ kubectl --kubeconfig "$prefix/etc/kubernetes/admin.kubeconfig" "$@"; }}
list_unmet {name}
"""
    )
    done = subprocess.run(
        ["sh", script], env=build.environment("cp1"), capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert all(" not found" in line or " is missing, not True" in line for line in lines), lines
    return [line.split()[1] for line in lines]


@pytest.mark.long
@pytest.mark.skipif(
    os.geteuid() != 0, reason="files cannot get other owners: the tests do not run as root"
)
def test_hooks_run_with_the_units_user_from_copies_of_their_files(site: Site) -> None:
    admin = Client.read(site.first.root("cp1") / "etc/kubernetes/admin.kubeconfig")
    folder = site.builder.directory / "own"
    write_folder(folder, make_chart(**{"templates/secret.yaml": SECRET_HOOK}))
    build = site.build(own=(folder, {"namespace": "web"}))
    root = build.root("cp1")
    hooks = sorted((root / "etc/kubernetes/site-addons/own/hooks").glob("*.yaml"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in hooks] == [0o644, 0o600]
    site.first.register("w1")
    apply(build, code=3, user="yes")
    end_job(admin, "own-migrate")
    apply(build, user="yes")
    assert read_states(build) == {"own": "ready "}
    assert exists(admin, "/api/v1/namespaces/web/secrets/own-hook")
    # the record, which another start reads: nothing of it is root's
    claimed = root / "var/lib/kube-addons"
    assert {path.stat().st_uid for path in (claimed, claimed / "plan")} == {IDS[UNIT]}
    apply(site.build())
