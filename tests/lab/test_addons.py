"""Three add-ons on five hosts: with the first installation, changed while the host that applies them dies, one gone, one broken."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.addon_site import DEFINITION, make_deployment
from support.charts import find_helm, write_folder, write_helm
from support.lab import (
    FIGURES,
    Cluster,
    Kubectl,
    build,
    docker,
    hosts_sh,
    link_mirror,
    wait_for,
)
from support.paths import LAB_CACHE

pytestmark = pytest.mark.long

WENT_BACK = 5
PATIENT = "--ready-within 300"
"""Units are ready when the add-ons are: the hook takes 20 seconds."""
IMAGE = "nginx:1.22"
LATE_IMAGE = "late:1"
"""An image that no host has: of one add-on, which comes in a bundle of its own."""
CHART = {
    "Chart.yaml": "{apiVersion: v2, name: shop, version: VERSION}",
    "values.yaml": "auth: {password: ''}\n",
    "crds/gadget.yaml": yaml.safe_dump(DEFINITION),
    "templates/gadget.yaml": """\
apiVersion: example.com/v1
kind: Gadget
metadata: {name: "{{ .Release.Name }}"}
spec: {release: "{{ .Chart.Version }}"}
""",
    "templates/secret.yaml": """\
apiVersion: v1
kind: Secret
metadata: {name: "{{ .Release.Name }}"}
stringData: {password: "{{ default (randAlphaNum 16) .Values.auth.password }}"}
""",
    "templates/hook.yaml": """\
apiVersion: batch/v1
kind: Job
metadata:
  name: "{{ .Release.Name }}-migrate"
  annotations: {helm.sh/hook: "pre-install,pre-upgrade"}
spec:
  backoffLimit: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: a, image: "nginx:1.22", command: [sh, -c, "sleep 20; echo to {{ .Chart.Version }}"]}]
""",
    "templates/web.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}, annotations: {release: "{{ .Chart.Version }}"}}
    spec:
      containers:
      - name: web
        image: nginx:1.22
        imagePullPolicy: Always
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: "{{ .Release.Name }}", key: password}}}]
""",
}
KUSTOMIZATION = """\
resources: [web.yaml]
namePrefix: tuned-
configMapGenerator: [{name: settings, literals: [a=1]}]
"""


@dataclass(frozen=True)
class Addons:
    """The five hosts, and bundles for them with add-ons."""

    cluster: Cluster

    @property
    def examples(self) -> Path:
        return self.cluster.directory / "examples"

    def describe(
        self, name: str, *, release: str, tuned: bool = True, command: list[str] | None = None, given: str = "of-the-site",
        late: bool = False,
    ) -> Path:  # fmt: skip
        """Write the manifests, the kustomization, the chart with the given password and NAME.yaml; return the last."""
        folder = self.examples / name
        write_folder(
            folder / "shop",
            {path: text.replace("VERSION", release) for path, text in CHART.items()},
        )
        write_folder(
            folder / "base", {"web.yaml": yaml.safe_dump(make_deployment("base", IMAGE, command))}
        )
        write_folder(
            folder / "tuned",
            {
                "kustomization.yaml": KUSTOMIZATION,
                "web.yaml": yaml.safe_dump(make_deployment("web", IMAGE)),
            },
        )
        shop = {
            "name": "shop", "chart": {"path": f"{name}/shop"}, "namespace": "shop", "needs": ["base"],
            "set": {"auth": {"password": given}},
        }  # fmt: skip
        wait = {"timeout": "40s"} if command else {"timeout": "5m"}
        found = [
            {"name": "base", "manifests": f"{name}/base", "namespace": "base", "wait": wait}, shop,
            *([{"name": "tuned", "manifests": f"{name}/tuned", "namespace": "tuned"}] if tuned else []),
        ]  # fmt: skip
        document = yaml.safe_load((self.examples / "lab.yaml").read_text())
        if late:
            write_folder(
                folder / "late", {"web.yaml": yaml.safe_dump(make_deployment("late", LATE_IMAGE))}
            )
            found.append({"name": "late", "manifests": f"{name}/late", "namespace": "late"})
            document["images"].append({"ref": LATE_IMAGE, "file": "late.tar"})
        (self.examples / f"{name}.yaml").write_text(yaml.safe_dump(document | {"addons": found}))
        return self.examples / f"{name}.yaml"

    def build(
        self, description: Path, output: str = "", *, words: tuple[str, ...] = ("build",), **environment: str
    ) -> Path:  # fmt: skip
        """Make the bundles of a description; returns their directory."""
        target = self.cluster.directory / (output or description.stem)
        build(
            description, target, cache=LAB_CACHE / "product-cache", environment=environment, sources=self.sources,
            words=words, arguments=("--state", str(self.examples / "lab.state")),
        )  # fmt: skip
        return target

    @property
    def sources(self) -> tuple[str, ...]:
        """The lab's mirror with Helm, and pins that have it."""
        mirror, pins = self.examples / "mirror", self.examples / "pins.yaml"
        if not mirror.exists():
            link_mirror(mirror)
            pins.write_text(json.dumps(yaml.safe_load((LAB_CACHE / "pins.yaml").read_text())))
            write_helm(mirror, pins, find_helm())
        return "--mirror", str(mirror), "--pins", str(pins)

    def await_states(self, kubectl: Kubectl, **states: str) -> None:
        def read() -> dict[str, str]:
            maps = json.loads(kubectl("-n kube-system get configmap -o json", check=False) or '{"items": []}')  # fmt: skip
            return {
                found["metadata"]["name"].removeprefix("bundler-addon-"): found["data"]["state"]
                for found in maps["items"]
                if found["metadata"]["name"].startswith("bundler-addon-")
            }

        wait_for(f"add-ons {states}", lambda: read() == states, seconds=300)

    def check(self) -> None:
        done = self.cluster.verify()
        assert done.returncode == 0, done.stdout
        assert "addons" in done.stdout


def count_runs(kubectl: Kubectl) -> str:
    return kubectl("-n shop logs job/shop-migrate", check=False).strip()


@pytest.fixture(scope="module")
def addons(cluster: Cluster) -> Iterator[Addons]:
    """The hosts again as after their first boot, and the first build with add-ons installed on them."""
    hosts_sh("up", *(f"{host.name}={host.address}" for host in cluster.hosts.values()))
    made = Addons(cluster)
    bundles = made.build(made.describe("addons-1", release="1.0.0"))
    for host, said in zip(cluster.hosts.values(), cluster.install(bundles, PATIENT), strict=True):
        if host in cluster.masters:
            assert "add-on base: " in said, said
    yield made
    cluster.is_green = False


def test_add_ons_are_applied_with_the_first_installation(addons: Addons) -> None:
    cluster, kubectl = addons.cluster, addons.cluster.kubectl
    addons.await_states(kubectl, base="ready", shop="ready", tuned="ready")
    assert count_runs(kubectl) == "to 1.0.0"
    assert "1.0.0" in kubectl("-n shop get gadget shop -o jsonpath={.spec.release}")
    assert kubectl("-n shop exec deployment/shop -- printenv PASSWORD").strip() == "of-the-site"
    assert "deployment.apps/tuned-web" in kubectl("-n tuned get deployment -o name")
    addons.check()
    used = {event["metadata"]["namespace"] for event in cluster.list_image_events()}
    assert {"shop", "base", "tuned"} <= used


def test_two_builds_are_the_same_byte_by_byte(addons: Addons) -> None:
    again = addons.build(
        addons.examples / "addons-1.yaml", "again", TZ="Pacific/Apia", LC_ALL="C", HOME=os.devnull
    )
    first = addons.cluster.directory / "addons-1"
    sums = [(directory / "SHA256SUMS").read_text() for directory in (first, again)]
    assert sums[0] == sums[1]


def test_a_random_password_stops_the_build_with_the_value_to_set(addons: Addons) -> None:
    with pytest.raises(AssertionError, match=r"set auth\.password"):
        addons.build(addons.describe("random", release="1.0.0", given=""))


def test_a_change_goes_on_when_the_host_that_applies_it_dies(addons: Addons) -> None:
    """The hook of the upgrade takes 20 seconds: its host is killed amid them, install.sh still running."""
    cluster = addons.cluster
    bundles = addons.build(addons.describe("addons-2", release="2.0.0", tuned=False))

    def find_holder() -> str:
        """The host that applies add-ons while the hook runs; empty at other times."""
        job = cluster.kubectl("-n shop get job shop-migrate -o json", check=False)
        found = json.loads(job) if job.startswith("{") else {}
        if "to 2.0.0" not in json.dumps(found.get("spec")) or found["status"].get("succeeded"):
            return ""
        lease = cluster.kubectl("-n kube-system get lease bundler-addons -o json", check=False)
        return str(json.loads(lease)["spec"].get("holderIdentity", "")) if lease else ""

    holders: list[str] = []

    def is_held() -> bool:
        holders.append(find_holder())
        return bool(holders[-1])

    with ThreadPoolExecutor(len(cluster.hosts)) as pool:
        runs = {
            host.name: pool.submit(cluster.start_install, host, bundles, PATIENT)
            for host in cluster.hosts.values()
        }
        wait_for("a host applies the change", is_held, seconds=600, pause=0.5)
        dead = cluster.hosts[holders[-1]]
        docker("kill", dead.container)
        alive = Kubectl(next(host for host in cluster.masters if host != dead))
        taken = wait_for(
            "another host applies it",
            lambda: "2.0.0" in alive("-n shop get gadget shop -o jsonpath={.spec.release}", check=False),
            seconds=300,
        )  # fmt: skip
        done = {name: run.result() for name, run in runs.items() if name != dead.name}
    FIGURES.append(f"{dead.name} died while it applied add-ons: another one went on after {taken:.0f} s")  # fmt: skip
    addons.await_states(alive, base="ready", shop="ready")
    assert count_runs(alive) == "to 2.0.0"
    assert alive("get namespace tuned -o name").strip() == "namespace/tuned"
    assert not alive("-n tuned get deployment -o name").strip()
    docker("start", dead.container)
    wait_for("the killed host answers", lambda: dead.run("systemctl is-system-running --wait", check=False).stdout.strip() in {"running", "degraded"}, seconds=120)  # fmt: skip
    for name in (dead.name, *(name for name, run in done.items() if run.returncode)):
        again = cluster.start_install(cluster.hosts[name], bundles, PATIENT)
        assert again.returncode == 0, again.stdout
    addons.check()


def test_an_add_on_that_never_becomes_ready_takes_its_host_back(addons: Addons) -> None:
    cluster = addons.cluster
    description = addons.describe(
        "addons-3",
        release="2.0.0",
        tuned=False,
        command=["sh", "-c", "echo no licence >&2; exit 7"],
    )
    bundles = addons.build(description)
    done = cluster.start_install(cluster.masters[0], bundles, PATIENT)
    assert done.returncode == WENT_BACK, done.stdout
    assert "add-on base: failed: Deployment base/base" in done.stdout
    assert "no licence" in done.stdout
    addons.await_states(cluster.kubectl, base="ready", shop="ready")
    template = cluster.kubectl("-n base get deployment base -o jsonpath={.spec.template.spec}")
    assert "no licence" not in template
    addons.check()


def test_an_add_on_bundle_brings_an_add_on_and_its_images_to_the_cluster(addons: Addons) -> None:
    cluster, kubectl = addons.cluster, addons.cluster.kubectl
    docker("load", "-i", str(LAB_CACHE / "images" / "nginx.tar"))
    context = addons.examples / "late-image"
    write_folder(context, {"Dockerfile": f"FROM {IMAGE}\nLABEL late=1\n"})
    docker("build", "--quiet", "--tag", LATE_IMAGE, str(context))
    docker("save", "--output", str(addons.examples / "late.tar"), LATE_IMAGE)
    docker("rmi", LATE_IMAGE)
    description = addons.describe("addons-2", release="2.0.0", tuned=False, late=True)
    since = str(cluster.directory / "addons-2")
    bundles = addons.build(description, "late", words=("addon", "bundle", "late", "--since", since))
    carried = {path.name for path in bundles.glob("lab-*.tar.gz")}
    assert carried == {f"lab-{host.name}.tar.gz" for host in (*cluster.masters, *cluster.workers)}
    sizes = [path.stat().st_size for path in bundles.glob("lab-*.tar.gz")]
    for host in (*cluster.workers, *cluster.masters):
        done = cluster.start_install(host, bundles, PATIENT)
        assert done.returncode == 0, done.stdout
    addons.await_states(kubectl, base="ready", shop="ready", late="ready")
    image = "-n late get pods -o jsonpath={.items[*].spec.containers[*].image}"
    assert LATE_IMAGE in kubectl(image)
    addons.check()
    FIGURES.append(f"an add-on bundle: {max(sizes) / 1e6:.0f} MB for the largest of {len(sizes)} hosts")  # fmt: skip
