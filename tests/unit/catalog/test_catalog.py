"""The built-in pins are complete, well formed, and have the right URLs."""

import csv
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from support.descriptions import write_description
from typer.testing import CliRunner

from bundler import catalog
from bundler.catalog import (
    COMPONENTS,
    MACHINES,
    UNPINNED,
    URLS,
    artifact_url,
    closest_versions,
    default_kubernetes,
    find_artifact,
    list_available,
    list_pin_rows,
    list_versions,
)
from bundler.catalog.signatures import Scheme, find_signed
from bundler.cli.app import app
from bundler.cluster.loader import load_cluster
from bundler.errors import ConfigError


def read_rows(name: str) -> list[dict[str, str]]:
    text = (files("bundler.catalog") / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


ROWS = list(list_pin_rows())
FORMER_URLS = {
    "cni-plugins": (
        "https://github.com/containernetworking/plugins/releases/download/v{version}/cni-plugins-{arch}-v{version}.tgz",
        "https://storage.googleapis.com/kubernetes-release/network-plugins/cni-plugins-{arch}-v{version}.tgz",
    ),
    "cri-dockerd": (
        "https://github.com/Mirantis/cri-dockerd/releases/download/v{version}/cri-dockerd-v{version}-linux-{arch}.tar.gz",
    ),
    "etcd": (
        "https://github.com/coreos/etcd/releases/download/v{version}/etcd-v{version}-linux-{arch}.tar.gz",
    ),
}
"""Where old versions were published when their digests were recorded."""


@pytest.mark.parametrize("component", COMPONENTS)
def test_pins_are_well_formed(component: str) -> None:
    lengths = {"sha256": 64, "sha512": 128}
    for version in list_versions(component):
        for arch in ("amd64", "arm64"):
            pin = find_artifact(component, version, arch)
            if not pin:
                continue
            assert re.fullmatch(rf"[0-9a-f]{{{lengths[pin.algorithm]}}}", pin.digest)
            assert pin.url.startswith("https://")
            assert pin.source.startswith("catalog: ")


def test_no_file_is_pinned_twice_and_no_two_files_have_one_digest() -> None:
    keys = [(row["component"], row["version"], row["arch"]) for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert len({row["digest"] for row in ROWS}) == len(ROWS)
    assert {row["component"] for row in ROWS} == set(COMPONENTS) - UNPINNED


def test_every_pin_has_the_url_of_its_component_and_version() -> None:
    for row in ROWS:
        given = {"version": row["version"], "arch": row["arch"], "machine": MACHINES[row["arch"]]}
        templates = (URLS[row["component"]], *FORMER_URLS.get(row["component"], ()))
        assert row["url"] in [template.format(**given) for template in templates]
        assert row["source"]


@pytest.mark.parametrize("component", sorted(set(COMPONENTS) - UNPINNED))
def test_every_version_is_pinned_for_amd64_and_kubernetes_also_for_arm64(
    component: str,
) -> None:
    versions = list_versions(component)
    arm64 = [version for version in versions if find_artifact(component, version, "arm64")]
    assert all(find_artifact(component, version, "amd64") for version in versions)
    assert arm64
    if component.startswith("kubernetes-"):
        assert tuple(arm64) == versions == list_versions("kubernetes-server")


def test_kubernetes_is_pinned_by_sha512_as_in_its_changelogs() -> None:
    of_kubernetes = [row for row in ROWS if row["component"].startswith("kubernetes-")]
    assert {row["algorithm"] for row in of_kubernetes} == {"sha512"}
    assert {len(row["digest"]) for row in of_kubernetes} == {128}


def test_a_pin_says_how_many_sources_state_it() -> None:
    for row in ROWS:
        assert int(row["sources"]) >= 1
        assert "[single source" not in row["source"] or row["sources"] == "1", row
        assert row["sources"] == "1" or " ; " in row["source"] or ", " in row["source"], row


def test_a_digest_on_which_public_sources_disagree_is_not_pinned() -> None:
    assert "3.5.2" not in list_versions("etcd")


def test_the_default_kubernetes_is_the_newest_patch_of_the_newest_minor_with_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert default_kubernetes() == "1.37.1"
    pins = {key: pin for key, pin in catalog._pins().items() if key[1] != "1.37.1"}
    monkeypatch.setattr("bundler.catalog._pins", lambda: pins)
    assert default_kubernetes.__wrapped__() == "1.36.4"
    without_arm64 = {key: pin for key, pin in pins.items() if key[1:] != ("1.36.4", "arm64")}
    monkeypatch.setattr("bundler.catalog._pins", lambda: without_arm64)
    assert default_kubernetes.__wrapped__() == "1.36.3"


def test_the_default_of_a_minor_is_the_newest_pinned_patch_of_its_line() -> None:
    """A new pin of a line changes the defaults of all minors that have it."""
    for row in read_rows("defaults.tsv"):
        component, version = row["component"], row["version"]
        if component not in COMPONENTS:
            continue  # an image, which has no pin
        line = version.rpartition(".")[0]
        both = [v for v in list_available(component, "amd64")
                if v in list_available(component, "arm64") and v.rpartition(".")[0] == line]  # fmt: skip
        assert version == both[-1], row


def test_a_pin_has_the_url_of_the_template() -> None:
    pin = find_artifact("kubernetes-server", "1.20.2", "amd64")
    assert pin is not None
    assert pin.url == artifact_url("kubernetes-server", "1.20.2", "amd64")
    assert pin.label == "kubernetes-server 1.20.2 (amd64)"


def test_versions_close_to_an_unknown_one_are_listed() -> None:
    assert find_artifact("etcd", "3.4.99", "amd64") is None
    assert any(
        version.startswith("3.4.") for version in closest_versions("etcd", "3.4.99", "amd64")
    )


def test_versions_are_sorted_as_numbers() -> None:
    plain = [v for v in list_versions("etcd") if re.fullmatch(r"\d+\.\d+\.\d+", v)]
    assert len(plain) > 10
    assert plain == sorted(plain, key=lambda version: [int(part) for part in version.split(".")])


def list_by_command(*arguments: str) -> list[list[str]]:
    result = CliRunner().invoke(app, ["versions", *arguments])
    assert result.exit_code == 0
    return [line.split() for line in result.stdout.splitlines()]


def test_versions_are_listed_with_architectures_for_all_components_or_one() -> None:
    every = list_by_command()
    assert {name for name, *_ in every} == set(COMPONENTS) - UNPINNED
    assert len(every) == len({(row["component"], row["version"]) for row in ROWS})
    assert ["kubernetes-node", "1.20.2", "amd64", "arm64"] in every
    assert ["docker", "18.09.6", "amd64"] in every
    for component in ("kubernetes-node", "flannel-cni-plugin"):
        assert list_by_command(component) == [line for line in every if line[0] == component]


@pytest.mark.parametrize(
    ("given", "hint"), [("kubernetes-nodes", "did you mean 'kubernetes-node'?"), ("zzz", None)]
)
def test_an_unknown_component_is_an_error_with_the_nearest_name(
    given: str, hint: str | None
) -> None:
    error = CliRunner().invoke(app, ["versions", given]).exception
    assert isinstance(error, ConfigError)
    assert f"{given}: unknown component; known: kubernetes-server, " in error.message
    assert error.hint == hint


def test_a_node_archive_can_be_pinned_and_have_a_signer(tmp_path: Path) -> None:
    description = write_description(tmp_path)
    (tmp_path / "fulcio.pem").write_text("")
    own = {
        "artifacts": {"kubernetes-node/arm64": {"sha512": "ab" * 64}},
        "upstream_keys": {"kubernetes-node": {"cosign": f"{tmp_path}/fulcio.pem"}},
    }
    description.write_text(f"{description.read_text()}\n{yaml.safe_dump(own)}")
    cluster = load_cluster(description).cluster
    assert cluster.artifacts["kubernetes-node/arm64"].sha512 == "ab" * 64
    row = find_signed("kubernetes-node", "1.31.2", Scheme.COSIGN)
    assert row is not None
    assert row == find_signed("kubernetes-server", "1.31.2", Scheme.COSIGN)
