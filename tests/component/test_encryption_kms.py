"""Two real control planes: Secrets move to a key management service and back, and stay readable.

With plugin API v1 on Kubernetes 1.20.2, and v2 on the newer one that BUNDLER_KUBERNETES names.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.kms_plugin import KmsPlugin
from support.newer_kubernetes import NEW, find_newer_programs
from support.two_control_planes import Site, run_site

from bundler.state.encryption import ENCRYPTION

pytestmark = pytest.mark.long
pytest.importorskip("grpc", reason="a key management service cannot run: grpcio is not installed")

VALUES = {f"s{number}": f"value {number}" for number in range(20)}


@dataclass
class Place:
    """The cluster, its key management service, and cluster.yaml's key `encryption` that uses it."""

    site: Site
    service: KmsPlugin
    kms: dict[str, Any]


@pytest.fixture(params=["", NEW])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    programs, versions = find_newer_programs() if request.param else (None, {})
    # a socket's path has at most 107 characters
    directory = Path(tempfile.mkdtemp(prefix="kms-"))
    service = KmsPlugin(directory / "plugin.sock")
    kms = {
        "name": "vault", "version": "v2" if request.param else "v1",
        "socket": str(service.socket),
    }  # fmt: skip
    try:
        with run_site(tmp_path_factory, programs, **versions) as site:
            yield Place(site, service, kms)
    finally:
        service.stop()
        shutil.rmtree(directory)


def take(site: Site, step: str) -> None:
    trees = site.rotate(ENCRYPTION, step)
    for host in site.hosts:
        assert host.obstacle(trees[host.name]) == ""
        host.install(trees[host.name])
        site.check_secrets(VALUES)


def rotate(site: Site) -> set[str]:
    """Take the three steps; returns the names of the keys that etcd holds values under."""
    for step in ("read", "write"):
        take(site, step)
    code, said = site.one.run("finish-rotation.sh")
    assert code == 0, said
    take(site, "drop")
    return set(site.count_keys())


def test_secrets_move_to_a_key_management_service_and_back(place: Place) -> None:
    site, service = place.site, place.service
    site.create_secrets(VALUES)
    (former,) = site.count_keys()

    site.keys["encryption"] = {"provider": "kms", "kms": place.kms}
    assert rotate(site) == {"kms:vault"}
    assert service.asked["Encrypt"] > 0

    # The service takes a new key; values under the former one stay readable.
    service.add_key("second")
    site.create_secrets({"more": "of the second"})
    site.two.kubectl("delete", "secret", "more")
    site.check_secrets(VALUES)

    # While the service is away the API server is not ready.
    assert "kms" in site.one.kubectl("get", "--raw=/readyz?verbose")
    service.stop()
    site.one.wait("the API server is not ready", lambda: not site.one.is_ready())
    service.start()
    site.one.wait("the API server is ready again", site.one.is_ready)
    site.check_secrets(VALUES)

    # Back: `kms` stays in cluster.yaml until the end.
    site.keys["encryption"] = {"provider": former.partition(":")[0], "kms": place.kms}
    (last,) = rotate(site)
    assert last.startswith(f"{former.partition(':')[0]}:")
    site.keys["encryption"] = {"provider": former.partition(":")[0]}
    trees = site.build("without-kms")
    for host in site.hosts:
        host.install(trees[host.name])
    service.stop()
    site.check_secrets(VALUES)
