"""Two real control planes: the provider that encrypts Secrets changes, and all Secrets stay readable."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.two_control_planes import Site, run_site

from bundler.state.encryption import ENCRYPTION

pytestmark = pytest.mark.long

VALUES = {f"s{number}": f"value {number}" for number in range(60)}
RESOURCES = {"resources": ["secrets", "configmaps"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_site(tmp_path_factory, encryption=RESOURCES) as site:
        for number in range(5):
            site.one.kubectl(
                "create", "configmap", f"c{number}", f"--from-literal=value=plain {number}"
            )
        site.create_secrets(VALUES)
        yield site


def check_values(site: Site) -> None:
    """Every API server answers with every value."""
    site.check_secrets(VALUES)
    for host in site.hosts:
        found = json.loads(host.kubectl("get", "configmaps", "-o", "json"))["items"]
        plain = {one["metadata"]["name"]: one["data"].get("value") for one in found}
        assert {f"c{number}": f"plain {number}" for number in range(5)}.items() <= plain.items()


def install(site: Site, trees: dict[str, Path]) -> None:
    for host in site.hosts:
        assert host.obstacle(trees[host.name]) == ""
        host.install(trees[host.name])
        check_values(site)  # also while one host has the former bundle


def finish(site: Site) -> str:
    code, said = site.one.run("finish-rotation.sh")
    assert code == 0, said
    check_values(site)
    (found,) = site.count_keys()
    assert set(site.count_keys("configmaps")) == {found}
    return found


def test_the_provider_changes_and_every_secret_stays_readable(site: Site) -> None:
    assert set(site.count_keys()) == {"aescbc:key1"}
    assert set(site.count_keys("configmaps")) == {"aescbc:key1"}
    check_values(site)

    # secretbox after aescbc is a build: every API server reads with both
    site.keys = {"encryption": {"provider": "secretbox", **RESOURCES}}
    install(site, site.build("secretbox"))
    assert finish(site) == "secretbox:key1"

    # aesgcm is a rotation
    site.keys = {"encryption": {"provider": "aesgcm", **RESOURCES}}
    unchanged = site.build("aesgcm-without-rotation")
    config = (unchanged["one"] / "rootfs/etc/kubernetes/encryption-config.yaml").read_text()
    assert "aesgcm" not in config
    install(site, site.rotate(ENCRYPTION, "read"))
    assert set(site.count_keys()) <= {"secretbox:key1", "aescbc:key1"}
    install(site, site.rotate(ENCRYPTION, "write"))
    assert finish(site).startswith("aesgcm:key-")
    install(site, site.rotate(ENCRYPTION, "drop"))
    config = (site.one.root / "etc/kubernetes/encryption-config.yaml").read_text()
    assert [word for word in ("aescbc", "secretbox", "aesgcm") if word in config] == ["aesgcm"]

    # and back
    site.keys = {"encryption": {"provider": "secretbox", **RESOURCES}}
    for step in ("read", "write"):
        install(site, site.rotate(ENCRYPTION, step))
    assert finish(site).startswith("secretbox:key-")
    install(site, site.rotate(ENCRYPTION, "drop"))
    check_values(site)
