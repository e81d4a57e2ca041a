"""The built-in pins: whole, well formed, and where they say."""

import re

import pytest

from bundler.catalog import COMPONENTS, artifact_url, closest_versions, find_artifact, list_versions


@pytest.mark.parametrize("component", COMPONENTS)
def test_pins_are_well_formed_and_point_where_the_component_is_published(component: str) -> None:
    lengths = {"sha256": 64, "sha512": 128}
    for version in list_versions(component):
        for arch in ("amd64", "arm64"):
            pin = find_artifact(component, version, arch)
            if pin is None:
                continue
            assert re.fullmatch(rf"[0-9a-f]{{{lengths[pin.algorithm]}}}", pin.digest)
            assert pin.url.startswith("https://")
            assert pin.source.startswith("catalog: ")


def test_a_pin_is_where_the_template_says() -> None:
    pin = find_artifact("kubernetes-server", "1.20.2", "amd64")
    assert pin is not None
    assert pin.url == artifact_url("kubernetes-server", "1.20.2", "amd64")
    assert pin.label == "kubernetes-server 1.20.2 (amd64)"


def test_versions_near_a_missing_one_are_named() -> None:
    assert find_artifact("etcd", "3.4.99", "amd64") is None
    assert any(
        version.startswith("3.4.") for version in closest_versions("etcd", "3.4.99", "amd64")
    )


def test_versions_are_sorted_as_numbers() -> None:
    plain = [v for v in list_versions("etcd") if re.fullmatch(r"\d+\.\d+\.\d+", v)]
    assert len(plain) > 10
    assert plain == sorted(plain, key=lambda version: [int(part) for part in version.split(".")])
