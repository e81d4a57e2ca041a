"""Known add-ons: the table is complete and valid for every minor that it names, and commands print it."""

from pathlib import Path

import pytest
import yaml
from support.json_shapes import list_documented, list_fields, read_shape
from support.known_addons import HEAD, IDS, RELEASES, list_ends, make_text
from support.paths import EXAMPLES
from typer.testing import CliRunner

from bundler.catalog import read_table
from bundler.cli.app import app
from bundler.cluster.addons.proof import find_fault
from bundler.cluster.components import MINORS, key_of
from bundler.cluster.known_addons import (
    AddonRelease,
    KnownAddon,
    list_images,
    list_known,
    write_snippet,
)
from bundler.cluster.loader import load_cluster

OF_ISSUE = {
    "local-path", "nfs", "ingress-nginx", "nginx-gateway", "cert-manager", "kube-prometheus",
    "nvidia-device-plugin", "argo-cd", "calico", "cilium", "kube-network-policies",
}  # fmt: skip


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["addon", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(("known", "release"), RELEASES, ids=IDS)
def test_what_is_printed_is_a_valid_cluster_yaml_for_each_end(
    tmp_path: Path, known: KnownAddon, release: AddonRelease
) -> None:
    path = tmp_path / "cluster.yaml"
    for minor in list_ends(release):
        path.write_text(make_text(known, release, minor))
        cluster = load_cluster(path).cluster
        path.write_text(HEAD.format(minor=minor) + write_snippet(known, release))
        assert load_cluster(path).cluster == cluster
    assert all(line.startswith("#") or len(line) < 120 for line in path.read_text().splitlines())
    assert any(addon.verify for addon in cluster.addons)
    assert "{" not in yaml.safe_dump(list(known.addons)).replace("{version}", "")


def test_each_release_has_its_images_and_all_have_a_fixed_tag() -> None:
    rows = read_table("known-addon-images.tsv")
    assert {(row["addon"], row["version"]) for row in rows} == {
        (known.name, release.version) for known, release in RELEASES
    }
    assert [row["image"] for row in rows if find_fault(row["image"] or "")] == []
    for known, release in RELEASES:
        added = [image["ref"] for image in known.images]
        for key, word in release.words.items():
            added = [ref.replace(f"{{{key}}}", word) for ref in added]
        assert set(added) <= set(list_images(known, release))


def test_the_table_has_the_add_ons_that_sites_ask_for_newest_first() -> None:
    assert {known.name for known in list_known()} == OF_ISSUE
    for known in list_known():
        spans = [(key_of(each.since), key_of(each.until or MINORS[-1])) for each in known.releases]
        assert spans == sorted(spans, reverse=True), known.name
        assert all(since <= until for since, until in spans), known.name


def test_a_minor_gets_the_newest_release_that_its_project_supports() -> None:
    (known,) = (each for each in list_known() if each.name == "cert-manager")
    assert {minor: found.version if (found := known.find_release(minor)) else "" for minor in (
        "1.28", "1.29", "1.31", "1.32", "1.33", "1.36", "1.37",
    )} == {
        "1.28": "", "1.29": "v1.18.6", "1.31": "v1.19.6", "1.32": "v1.20.3", "1.33": "v1.21.1",
        "1.36": "v1.21.1", "1.37": "",
    }  # fmt: skip


def test_commands_list_and_show_them() -> None:
    lines = run("list", "--kubernetes", "1.37").splitlines()
    assert len(lines) == len(OF_ISSUE)
    assert "cert-manager          -                         no known release for 1.37" in lines
    assert any(line.startswith("nfs                   4.13.4    1.21 and later") for line in lines)
    shown = run("show", "local-path")
    assert "# Copy deploy/chart/local-path-provisioner of https://github.com/rancher/" in shown
    assert yaml.safe_load(shown)["images_not_needed"] == [
        "Deployment/local-path-storage/local-path-local-path-provisioner"
    ]
    gateway = run("show", "nginx-gateway", "--kubernetes", "1.30")
    assert "nginx-gateway 2.4.2" in gateway
    assert "gateway-api at v1.4.1" in " ".join(gateway.replace("\n#  ", "").split())


def test_json_is_as_documented() -> None:
    for shape, arguments in (
        ("addon-list", ["list"]),
        ("addon-show", ["show", "cert-manager", "--kubernetes", "1.32"]),
    ):
        data = read_shape(run(*arguments, "--json"), shape)
        fields = {
            field for field in list_fields(data) if not field.startswith(("keys.", "confirm."))
        }
        assert fields | {"keys", "confirm"} == list_documented(shape) | {"keys", "confirm"}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["show", "cert-manger"], "cert-manger: unknown add-on; known: local-path, nfs"),
        (["show", "cert-manager", "--kubernetes", "1.20"], "cert-manager: no known release for Kubernetes 1.20; known: v1.21.1 for 1.33 to 1.36"),
        (["list", "--kubernetes", "1.99"], "--kubernetes 1.99: must be a minor from 1.14 to 1.37"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_with_what_is(arguments: list[str], fault: str) -> None:
    done = CliRunner().invoke(app, ["addon", *arguments])
    assert done.exit_code != 0
    assert fault in str(done.exception) + done.output


NOT_HERE = {
    "platform": {
        "charts/local-path-provisioner": "No such file or directory",
        "chart csi-driver-nfs 4.13.4 of add-on nfs": "is not in the cache",
        "chart cert-manager v1.21.1 of add-on cert-manager": "is not in the cache",
        "chart nginx-gateway-fabric 2.6.7 of add-on nginx-gateway": "is not in the cache",
        "addons/gateway-api": "No such file or directory",
    },
    "argo-cd": {"addons/argo-cd": "No such file or directory"},
}
"""Example → what its check needs a network or a copy for, and nothing else."""


@pytest.mark.parametrize("name", list(NOT_HERE))
def test_an_example_is_checked_as_far_as_possible_without_a_network(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLER_CACHE", str(tmp_path))
    path = EXAMPLES / "addons" / name / "cluster.yaml"
    cluster = load_cluster(path).cluster
    of_table = {addon["name"]: addon for known in list_known() for addon in known.addons}
    assert {addon.name for addon in cluster.addons} & set(of_table)
    done = CliRunner().invoke(app, ["check", "-c", str(path)])
    assert done.exit_code != 0
    faults = [line for line in f"{done.exception}".splitlines() if ": addons[" in line]
    missing = NOT_HERE[name]
    assert len(faults) == len(missing)
    for words, what in missing.items():
        assert sum(words in line and what in line for line in faults) == 1, (words, faults)
