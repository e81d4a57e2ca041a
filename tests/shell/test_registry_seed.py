"""registry-seed.sh under every shell: it copies, checks, links, continues after a kill, and removes what left the bundle."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.shells import SHELLS, TEMPLATES, write_program

SEED = TEMPLATES / "registry/rootfs/opt/k8s/libexec/registry-seed.sh"
TRUST = TEMPLATES / "registry-docker/rootfs/opt/k8s/libexec/registry-trust.sh"
V2 = "var/lib/registry/docker/registry/v2"


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass
class Host:
    root: Path
    shell: list[str]

    def list(self, *images: str) -> None:
        """The list of a bundle with these images, each NAME:TAG with a layer that all share."""
        blobs = {"shared": None}
        links = []
        for image in images:
            name, _, tag = image.partition(":")
            blobs |= dict.fromkeys((f"config of {image}", f"manifest of {image}"))
            links += [
                ("layer", name, digest(what), "") for what in ("shared", f"config of {image}")
            ]
            links.append(("manifest", name, digest(f"manifest of {image}"), ""))
            links.append(("tag", name, digest(f"manifest of {image}"), tag))
        rows = [("blob", "-", digest(blob), str(len(blob))) for blob in blobs]
        order = ("layer", "manifest", "tag")
        rows += sorted(links, key=lambda row: order.index(row[0]))
        path = self.root / "opt/k8s/bundle/lib/registry.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# heading\n" + "".join("\t".join(row).rstrip("\t") + "\n" for row in rows))
        for blob in blobs:
            source = self.root / "opt/k8s/images/blobs/sha256" / digest(blob)
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(blob)

    def seed(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.shell, SEED, "/var/lib/registry"], capture_output=True, text=True, check=False,
            env={**os.environ, "DESTDIR": str(self.root), **environment}, start_new_session=True,
        )  # fmt: skip

    @property
    def tags(self) -> dict[str, str]:
        """NAME:TAG → what its manifest is, followed through the links as the registry does."""
        found = {}
        for link in (self.root / V2 / "repositories").glob("**/_manifests/tags/*/current/link"):
            name = link.parents[4].relative_to(self.root / V2 / "repositories")
            wanted = link.read_text().removeprefix("sha256:")
            revision = link.parents[3] / "revisions/sha256" / wanted / "link"
            assert revision.read_text() == f"sha256:{wanted}"
            assert (link.parents[1] / "index/sha256" / wanted / "link").exists()
            found[f"{name}:{link.parents[1].name}"] = self.read(wanted)
        return found

    def read(self, wanted: str) -> str:
        return (self.root / V2 / "blobs/sha256" / wanted[:2] / wanted / "data").read_text()

    @property
    def files(self) -> dict[str, bytes]:
        storage = self.root / "var/lib/registry"
        return {
            str(p.relative_to(storage)): p.read_bytes() for p in storage.rglob("*") if p.is_file()
        }


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(tmp_path / "root", request.param)


WEB, DB = "quay.io/team/web:1.0", "library/db:2.0"


def test_images_are_copied_and_linked_and_a_second_run_does_nothing(host: Host) -> None:
    host.list(WEB, DB)
    done = host.seed()
    assert (done.returncode, done.stderr) == (0, "")
    assert host.tags == {image: f"manifest of {image}" for image in (WEB, DB)}
    before = host.files
    assert host.seed().stdout == "images in the registry: 2, files written: 0\n"
    assert host.files == before
    complete = before[".bundler-complete"].decode().strip()
    listed = (host.root / "opt/k8s/bundle/lib/registry.tsv").read_bytes()
    assert complete == hashlib.sha256(listed).hexdigest()
    assert ".bundler-new" not in before


def test_a_run_that_is_killed_at_any_file_is_continued(host: Host, tmp_path: Path) -> None:
    host.list(WEB, DB)
    assert host.seed().returncode == 0
    whole = host.files
    for path in sorted((host.root / "var/lib/registry").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    count = tmp_path / "count"
    write_program(
        tmp_path / "programs/mv",
        f'n=$(cat {count})\necho $((n - 1)) >{count}\n[ "$n" -ne 0 ] || kill -9 0\nexec /bin/mv "$@"\n',
    )
    path = f"{tmp_path}/programs:{os.environ['PATH']}"
    killed = 0
    for moves in (0, 1, 2, 1, 0, 3, 2, 1, 2, 3, 1, 2, 99):
        count.write_text(f"{moves}\n")
        done = host.seed(PATH=path)
        for image, manifest in host.tags.items():
            assert manifest == f"manifest of {image}"
            assert host.read(digest("shared")) == "shared"
        killed += done.returncode == -9
        if done.returncode == 0:
            break
    assert killed > 5
    assert host.seed().returncode == 0
    assert host.files == whole


def test_an_image_that_leaves_the_bundle_is_removed_and_pushed_ones_stay(host: Host) -> None:
    host.list(WEB, DB)
    assert host.seed().returncode == 0
    pushed = host.root / V2 / "repositories/payments/app/_manifests/tags/1/current/link"
    pushed.parent.mkdir(parents=True)
    pushed.write_text("sha256:0")
    host.list(WEB)
    done = host.seed()
    assert done.returncode == 0
    assert f"removed {DB} ({digest(f'manifest of {DB}')})" in done.stdout
    pushed.unlink()
    assert host.tags == {WEB: f"manifest of {WEB}"}
    revisions = host.root / V2 / "repositories/library/db/_manifests/revisions/sha256"
    assert not list(revisions.iterdir())


def test_a_tag_moves_to_the_image_of_the_next_bundle(host: Host) -> None:
    host.list("library/db:1.0")
    assert host.seed().returncode == 0
    listed = host.root / "opt/k8s/bundle/lib/registry.tsv"
    former = listed.read_text()
    host.list("library/db:2.0")
    text = listed.read_text().replace("\t2.0\n", "\t1.0\n")
    listed.write_text(text)
    assert host.seed().returncode == 0
    assert host.tags == {"library/db:1.0": "manifest of library/db:2.0"}
    listed.write_text(former)  # the host goes back
    assert host.seed().returncode == 0
    assert host.tags == {"library/db:1.0": "manifest of library/db:1.0"}


def test_a_damaged_or_missing_source_fails_with_the_fix(host: Host) -> None:
    host.list(DB)
    source = host.root / "opt/k8s/images/blobs/sha256" / digest("shared")
    source.write_text("damage")
    done = host.seed()
    assert done.returncode == 1
    assert f"{source} is damaged: run install.sh of the bundle" in done.stderr
    source.unlink()
    done = host.seed()
    assert done.returncode == 1
    assert f"cannot copy {source}: run install.sh of the bundle" in done.stderr
    assert host.tags == {}
    assert ".bundler-complete" not in host.files
    (host.root / "opt/k8s/bundle/lib/registry.tsv").unlink()
    assert "cannot read" in host.seed().stderr


def test_a_lost_or_empty_blob_is_copied_again(host: Host) -> None:
    host.list(DB)
    assert host.seed().returncode == 0
    wanted = digest("shared")
    data = host.root / V2 / "blobs/sha256" / wanted[:2] / wanted / "data"
    for lose in (data.unlink, lambda: data.write_text("")):
        lose()
        done = host.seed()
        assert (done.returncode, done.stdout) == (
            0,
            "images in the registry: 1, files written: 1\n",
        )
        assert data.read_text() == "shared"


def test_without_an_argument_it_says_how_it_is_used(host: Host) -> None:
    done = subprocess.run([*host.shell, SEED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: registry-seed.sh STORAGE\n")


def test_docker_finds_the_clusters_ca_for_each_host_of_the_registry(host: Host) -> None:
    for _ in range(2):
        done = subprocess.run(
            [*host.shell, TRUST, "192.0.2.1:5000", "192.0.2.2:5000"], check=True,
            env={**os.environ, "DESTDIR": str(host.root)},
        )  # fmt: skip
        assert done.returncode == 0
    links = sorted((host.root / "etc/docker/certs.d").glob("*/*"))
    assert [link.parent.name for link in links] == ["192.0.2.1:5000", "192.0.2.2:5000"]
    assert {str(link.readlink()) for link in links} == {"/etc/kubernetes/pki/ca.crt"}
