"""Images of a cluster: references, files in every format, and the images that it needs."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.registries import (
    DOCKER_MANIFEST,
    MadeImage,
    make_layer,
    pack_directory,
    sha256,
    write_oci_directory,
)

from bundler.cache.store import Cache
from bundler.cluster.images import is_for
from bundler.cluster.inputs import Image
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.errors import ArtifactError, ConfigError
from bundler.formats.image_archives import open_image
from bundler.formats.image_references import full_name, parse_reference
from bundler.formats.stored_images import ByteRange
from bundler.render.completeness import check_images_complete
from bundler.render.tree import File, Tree
from bundler.sources.payloads import ensure_layers

DIGEST = f"sha256:{'ab' * 32}"
NGINX = parse_reference("nginx:1.22")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("nginx:1.22", "docker.io/library/nginx:1.22"),
        ("bitnami/nginx:1", "docker.io/bitnami/nginx:1"),
        ("registry.k8s.io/pause:3.2", "registry.k8s.io/pause:3.2"),
        ("localhost/a:1", "localhost/a:1"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        (f"nginx:1.22@{DIGEST}", "docker.io/library/nginx:1.22"),
        ("docker.io/library/nginx:1.22", "docker.io/library/nginx:1.22"),
    ],
)
def test_references_have_one_full_form(short: str, full: str) -> None:
    assert full_name(short) == full


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx@sha256:abc", "a digest after @"),
        ("Nginx:1", "must have a repository"),
        ("a//b:1", "must have a repository"),
        ("a/../b:1", "must have a repository"),
        ("nginx:", "must have a tag"),
        ("nginx:1 2", "must have a tag"),
        ("-x.example/a:1", "must have a host name"),
        ("x.example/" + "a" * 250, "must have a repository"),
    ],
)
def test_an_invalid_reference_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_reference(text)


def test_a_reference_has_the_url_of_its_registry() -> None:
    assert NGINX.url == "https://registry-1.docker.io/v2/library/nginx/manifests/1.22"
    pinned = parse_reference(f"x.example:5000/a:1@{DIGEST}")
    assert pinned.url == f"https://x.example:5000/v2/a/manifests/{DIGEST}"
    assert pinned.by_digest == f"x.example:5000/a@{DIGEST}"


# files


def test_an_image_is_read_from_an_archive_by_its_reference(
    tmp_path: Path, make_archive: Callable[[Path, str], str]
) -> None:
    image_id = make_archive(tmp_path / "x.tar", "nginx:1.22")
    stored = open_image(tmp_path / "x.tar", NGINX, "amd64")
    assert (stored.image_id, stored.architecture) == (image_id, "amd64")
    assert [layer.place.read() for layer in stored.layers] == [b"layer of nginx:1.22"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_archive_with_a_huge_header_is_refused(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type = kind
    header.size = 300 << 20
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(header.size + 8192)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match="a header of 314572800 bytes"):
            open_image(tmp_path / "x.tar", NGINX, "amd64")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def make_images() -> dict[str, MadeImage]:
    return {
        arch: MadeImage([make_layer("x", arch.encode() * 2000)], arch, DOCKER_MANIFEST)
        for arch in ("amd64", "arm64")
    }


@pytest.mark.parametrize("name", ["1.22", "docker.io/library/nginx:1.22", "nginx:1.22"])
@pytest.mark.parametrize("is_packed", [True, False], ids=["archive", "directory"])
def test_oci_files_keep_the_manifest_of_the_registry_and_have_architectures(
    tmp_path: Path, name: str, *, is_packed: bool
) -> None:
    images = make_images()
    write_oci_directory(tmp_path / "oci", {name: list(images.values())})
    path = tmp_path / "oci"
    if is_packed:
        path = tmp_path / "oci.tar"
        pack_directory(tmp_path / "oci", path)
    for arch, image in images.items():
        stored = open_image(path, NGINX, arch)
        assert stored.manifest.content == image.manifest
        assert [layer.place.read() for layer in stored.layers] == image.blobs
    with pytest.raises(ArtifactError, match="not published for linux/s390x"):
        open_image(path, NGINX, "s390x")
    digest = sha256(images["arm64"].manifest)
    with pytest.raises(ArtifactError, match="does not hold nginx:1.22@sha256"):
        open_image(path, parse_reference(f"nginx:1.22@{digest}"), "arm64")


def test_an_image_in_an_oci_file_is_found_by_its_digest(tmp_path: Path) -> None:
    image = make_images()["amd64"]
    write_oci_directory(tmp_path / "oci", {"any": [image]})
    pinned = parse_reference(f"nginx:1.22@{sha256(image.manifest)}")
    assert open_image(tmp_path / "oci", pinned, "amd64").image_id == image.image_id


def test_a_docker_save_directory_with_compressed_layers_is_read(tmp_path: Path) -> None:
    image = make_images()["amd64"]
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/config.json").write_bytes(image.config)
    (tmp_path / "saved/layer.tar.gz").write_bytes(image.blobs[0])
    manifest = [{"Config": "config.json", "RepoTags": ["nginx:1.22"], "Layers": ["layer.tar.gz"]}]
    (tmp_path / "saved/manifest.json").write_text(json.dumps(manifest))
    stored = open_image(tmp_path / "saved", NGINX, "amd64")
    assert [layer.descriptor.digest for layer in stored.layers] == [sha256(image.blobs[0])]
    manifest[0]["Layers"] = ["../outside"]
    (tmp_path / "outside").write_bytes(image.blobs[0])
    (tmp_path / "saved/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"'\.\./outside' is missing"):
        open_image(tmp_path / "saved", NGINX, "amd64")


def test_an_archive_without_the_reference_is_reported_with_its_images(
    tmp_path: Path, make_archive: Callable[[Path, str], str]
) -> None:
    make_archive(tmp_path / "x.tar", "nginx:1.22")
    with pytest.raises(
        ArtifactError, match="does not hold nginx:1.23; it holds docker.io/library/nginx:1.22"
    ):
        open_image(tmp_path / "x.tar", parse_reference("nginx:1.23"), "amd64")


def write_tar(path: Path, members: list[tuple[str, bytes | str]]) -> Path:
    """Write files; a text content is the target of a symbolic link."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def saved(layers: list[str], config: bytes) -> tuple[str, bytes]:
    entry = {"Config": "c.json", "RepoTags": ["nginx:1.22"], "Layers": layers}
    return "manifest.json", json.dumps([entry]).encode()


def test_a_repeated_layer_may_be_a_link(tmp_path: Path) -> None:
    layer = make_layer("x", b"x")
    image = MadeImage([layer, layer])
    members = [
        ("c.json", image.config), ("a/layer.tar", layer), ("b/layer.tar", "../a/layer.tar"),
        saved(["a/layer.tar", "b/layer.tar"], image.config),
    ]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    stored = open_image(path, NGINX, "amd64")
    assert [part.place.read() for part in stored.layers] == [layer, layer]
    escape = [*members[:2], ("b/layer.tar", "../../../etc/passwd"), members[3]]
    with pytest.raises(ArtifactError, match="'b/layer.tar' is a link that leads out"):
        open_image(write_tar(tmp_path / "y.tar", escape), NGINX, "amd64")


@pytest.mark.parametrize("name", ["manifest.json", "index.json", "c.json"])
def test_documents_that_are_nested_too_deeply_are_refused(tmp_path: Path, name: str) -> None:
    layer = make_layer("x", b"x")
    members = dict([("c.json", MadeImage([layer]).config), ("l.tar", layer), saved(["l.tar"], b"")])
    path = write_tar(tmp_path / "x.tar", list((members | {name: b"[" * 100_000}).items()))
    with pytest.raises(ArtifactError, match="nested too deeply"):
        open_image(path, NGINX, "amd64")


def test_an_archive_on_bad_media_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer("x", b"x")
    members = [("c.json", MadeImage([layer]).config), ("l.tar", layer), saved(["l.tar"], b"")]
    path = write_tar(tmp_path / "x.tar", members)

    def fail(_: ByteRange) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ByteRange, "read", fail)
    with pytest.raises(ArtifactError, match=r"x\.tar: Input/output error"):
        open_image(path, NGINX, "amd64")


def test_bad_archives_are_refused(tmp_path: Path) -> None:
    layer = make_layer("x", b"x" * 5000)
    image = MadeImage([layer])
    good: list[tuple[str, Any]] = [
        ("c.json", image.config), ("l.tar", layer), saved(["l.tar"], b""),
    ]  # fmt: skip
    good_path = write_tar(tmp_path / "good.tar", good)
    assert open_image(good_path, NGINX, "amd64").image_id == image.image_id
    twice = write_tar(tmp_path / "twice.tar", [*good, ("./l.tar", b"evil")])
    with pytest.raises(ArtifactError, match="'./l.tar' is in the archive twice"):
        open_image(twice, NGINX, "amd64")
    (tmp_path / "text").write_text("no archive")
    cut, zipped = tmp_path / "cut.tar", tmp_path / "x.tar.gz"
    cut.write_bytes(good_path.read_bytes()[:3000])
    zipped.write_bytes(gzip.compress(good_path.read_bytes()))
    for path in (tmp_path / "text", cut, zipped):
        with pytest.raises(ArtifactError, match="not a complete, uncompressed tar archive"):
            open_image(path, NGINX, "amd64")
    with pytest.raises(ArtifactError, match="has neither manifest.json"):
        open_image(write_tar(tmp_path / "empty.tar", []), NGINX, "amd64")
    with pytest.raises(ArtifactError, match="does not match the archive"):
        open_image(write_tar(tmp_path / "missing.tar", good[1:]), NGINX, "amd64")
    with pytest.raises(ArtifactError, match="No such file"):
        open_image(tmp_path / "none", NGINX, "amd64")


GNU_FORMS = ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix"]


def save_image(directory: Path, layer: bytes, config: bytes | None = None) -> Path:
    """The files of `docker save`."""
    directory.mkdir()
    image = MadeImage([layer])
    (directory / "c.json").write_bytes(config or image.config)
    (directory / "l.tar").write_bytes(layer)
    name, content = saved(["l.tar"], b"")
    (directory / name).write_bytes(content)
    return directory


@pytest.mark.parametrize("form", GNU_FORMS)
def test_an_archive_with_sparse_files_is_refused_by_name(tmp_path: Path, form: str) -> None:
    saved_image = save_image(tmp_path / "saved", bytes(1 << 20) + b"x")
    with (saved_image / "l.tar").open("r+b") as file:
        file.truncate(2 << 20)
    command = f"tar --format={form} -S -cf x.tar -C saved c.json l.tar manifest.json".split()
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(ArtifactError, match=r"x.tar: .*'l.tar' is a sparse file"):
        open_image(tmp_path / "x.tar", NGINX, "amd64")


@pytest.mark.parametrize("key", ["GNU.sparse.realsize", "GNU.sparse.size", "SCHILY.realsize"])
def test_an_archive_with_sparse_files_of_other_programs_is_refused(
    tmp_path: Path, key: str
) -> None:
    """tarfile takes the stated size for that of the member: the build read past the file's end."""
    saved_image = save_image(tmp_path / "saved", make_layer("x", b"x"))
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(saved_image.iterdir()):
            member = archive.gettarinfo(path, path.name)
            member.pax_headers = {key: "100000000"} if path.name == "l.tar" else {}
            archive.addfile(member, io.BytesIO(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"x.tar: .*'l.tar' is a sparse file"):
        open_image(tmp_path / "x.tar", NGINX, "amd64")


def test_a_layer_that_ends_early_is_named_when_it_is_compressed(tmp_path: Path) -> None:
    layer = make_layer("x", b"x" * 50_000)
    path = write_tar(
        tmp_path / "x.tar",
        [("c.json", MadeImage([layer]).config), saved(["l.tar"], b""), ("l.tar", layer)],
    )
    stored = open_image(path, NGINX, "amd64")
    os.truncate(path, 30_000)  # after the check
    with pytest.raises(ArtifactError, match=r"x\.tar: "):
        ensure_layers({("nginx", "amd64"): stored}, Cache(tmp_path / "cache"))


def test_a_layer_with_a_sparse_file_is_refused(tmp_path: Path) -> None:
    """docker/cli 6153: "unhandled tar header type 83", from Docker and from containerd."""
    (tmp_path / "root").mkdir()
    with (tmp_path / "root/hole").open("wb") as file:
        file.truncate(1 << 20)
    for form, is_refused in {"gnu": True, "posix": False}.items():
        command = f"tar --format={form} -S -cf {form}.tar -C root hole".split()
        subprocess.run(command, cwd=tmp_path, check=True)
        layer = (tmp_path / f"{form}.tar").read_bytes()
        path = save_image(tmp_path / f"saved-{form}", layer)
        if is_refused:
            with pytest.raises(ArtifactError, match="layer 1 has the sparse file 'hole'"):
                open_image(path, NGINX, "amd64")
        else:
            open_image(path, NGINX, "amd64")


@pytest.mark.parametrize(
    ("runtime", "fault"),
    [
        ("engine: docker", "compressed with zstd, which docker 20.10.23 cannot unpack .use docker 23.0"),
        ("version: 25.0.5", None),
        ("engine: containerd, version: 1.4.13", "which containerd 1.4.13 cannot unpack"),
        ("engine: containerd, version: 1.6.20", None),
    ],
)  # fmt: skip
def test_layers_compressed_with_zstd_need_a_runtime_that_reads_them(
    tmp_path: Path, runtime: str, fault: str | None
) -> None:
    layer = b"\x28\xb5\x2f\xfd" + b"x" * 100
    for name, ref in (("pause", "registry.k8s.io/pause:3.2"), ("web", "nginx:1.22")):
        path = save_image(tmp_path / name, layer, MadeImage([b"plain"]).config)
        manifest = (path / "manifest.json").read_text().replace("nginx:1.22", ref)
        (path / "manifest.json").write_text(manifest)
    description = tmp_path / "cluster.yaml"
    description.write_text(
        "apiVersion: bundler/v1alpha1\nname: z\nkubernetes: {version: 1.20.2}\n"
        f"runtime: {{{runtime}}}\ndns: {{provider: none}}\n"
        "nodes: [{name: a, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]\n"
        "images: [{ref: 'registry.k8s.io/pause:3.2', file: pause},"
        " {ref: 'nginx:1.22', file: web, use: verify}]\n"
    )
    if fault:
        with pytest.raises(ConfigError, match=fault) as caught:
            load_cluster(description)
        assert caught.value.message.count("zstd") == 2
        assert f"{tmp_path}/web: nginx:1.22" in caught.value.message
    else:
        load_cluster(description)
        (stored,) = open_image(tmp_path / "web", NGINX, "amd64").layers
        assert stored.descriptor.media_type == "application/vnd.oci.image.layer.v1.tar+zstd"
        assert stored.descriptor.digest == sha256(layer)


@pytest.mark.parametrize("engine", ["docker", "containerd"])
def test_an_image_with_a_digest_is_a_warning_only_with_docker(tmp_path: Path, engine: str) -> None:
    (tmp_path / "cluster.yaml").write_text(
        f"apiVersion: bundler/v1alpha1\nname: z\nkubernetes: {{version: 1.20.2}}\n"
        f"runtime: {{engine: {engine}}}\n"
        "nodes: [{name: a, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]\n"
        f"images: [{{ref: 'registry.example/app:1@{DIGEST}'}}]\n"
    )
    warnings = load_cluster(tmp_path / "cluster.yaml").warnings
    said = [text for text in warnings if "does not find a loaded image by its digest" in text]
    assert len(said) == (engine == "docker")
    assert all(
        "images[0].ref" in text and "name it registry.example/app:1," in text for text in said
    )


@pytest.mark.parametrize("module", [bz2, lzma])
def test_layers_with_another_compression_are_refused(tmp_path: Path, module: Any) -> None:
    layer = make_layer("x", b"x")
    path = save_image(tmp_path / "x", module.compress(layer), MadeImage([layer]).config)
    with pytest.raises(ArtifactError, match=r"nginx:1.22: has a layer .* with (bzip2|xz)"):
        open_image(path, NGINX, "amd64")


def test_two_images_under_one_bare_tag_are_refused(tmp_path: Path) -> None:
    """skopeo 1366: `skopeo copy ... oci:DIRECTORY:TAG` keeps only the tag."""
    made = [MadeImage([make_layer("x", name.encode())]) for name in ("nginx", "redis")]
    write_oci_directory(tmp_path / "oci", {"1.22": [made[0]], "other": [made[1]]})
    index = tmp_path / "oci/index.json"
    index.write_text(index.read_text().replace("other", "1.22"))
    with pytest.raises(ArtifactError, match="2 images for amd64 have that name or tag") as caught:
        open_image(tmp_path / "oci", NGINX, "amd64")
    assert all(image.image_id[:19] in caught.value.message for image in made)
    pinned = parse_reference(f"nginx:1.22@{sha256(made[1].manifest)}")
    assert open_image(tmp_path / "oci", pinned, "amd64").image_id == made[1].image_id
    index.write_text(index.read_text().replace("1.22", "docker.io/library/nginx:1.22", 1))
    assert open_image(tmp_path / "oci", NGINX, "amd64").image_id == made[0].image_id


def test_a_layer_with_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    image = MadeImage([make_layer("x", b"x" * 5000)])
    members = [
        ("c.json", image.config), ("l.tar", make_layer("x", b"y" * 5000)), saved(["l.tar"], b""),
    ]  # fmt: skip
    stored = open_image(write_tar(tmp_path / "x.tar", members), NGINX, "amd64")
    with pytest.raises(ArtifactError, match="the digest of a layer does not match its content"):
        ensure_layers({("nginx", "amd64"): stored}, Cache(tmp_path / "cache"))


# what the cluster needs


@pytest.mark.parametrize(
    ("ref", "use", "purpose", "expected"),
    [
        ("k8s.gcr.io/pause:3.2", None, "pause", True),
        ("mirror.example/k8s/pause-amd64:3.1", None, "pause", True),
        ("mine/sandbox:1", "pause", "pause", True),
        ("pause-menu:1", "verify", "pause", False),
        ("registry.k8s.io/coredns/coredns:v1.8.6", None, "coredns", True),
    ],
)
def test_an_image_is_found_by_its_name_or_purpose(
    ref: str, use: Any, purpose: str, *, expected: bool
) -> None:
    assert is_for(Image(ref=ref, use=use), purpose) is expected


SITE = """\
apiVersion: bundler/v1alpha1
name: site
kubernetes: {version: 1.28.4}
runtime: {engine: RUNTIME}
metrics_server: {}
nodes: [{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}]
"""


def write_site(directory: Path, images: str = "", runtime: str = "containerd") -> Path:
    path = directory / "cluster.yaml"
    path.write_text(SITE.replace("RUNTIME", runtime) + images)
    return path


def test_images_that_are_not_listed_are_pulled_from_upstream(tmp_path: Path) -> None:
    cluster = load_cluster(write_site(tmp_path)).cluster
    assert [(image.ref, image.file) for image in cluster.images] == [
        ("registry.k8s.io/pause:3.9", None),
        ("registry.k8s.io/coredns/coredns:v1.10.1", None),
        ("registry.k8s.io/metrics-server/metrics-server:v0.7.2", None),
    ]
    own = 'images: [{ref: "mine.example/pause:1"}]\n'
    cluster = load_cluster(write_site(tmp_path, own)).cluster
    assert [image.ref for image in cluster.images if "pause" in image.ref] == [
        "mine.example/pause:1"
    ]


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("nginx", "no fixed tag"),
        (f"nginx@{DIGEST}", "no fixed tag"),
        ("nginx:latest", "no fixed tag"),
        ("nginx@sha256:12", "a digest after @"),
        ("NGINX:1", "must have a repository"),
    ],
)
def test_references_that_hosts_cannot_use_are_refused(
    tmp_path: Path, ref: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=rf"cluster.yaml:7:\d+: images\[0\].ref: .*{expected}"):
        load_cluster(write_site(tmp_path, f'images: [{{ref: "{ref}", use: verify}}]\n'))


def check_manifest(
    path: Path, text: str, name: str = "rootfs/etc/kubernetes/addons/x.yaml"
) -> None:
    plan = make_plan(load_cluster(path).cluster)
    tree = Tree([File(path=name, mode=0o644, content=text.encode(), origin="x")])
    check_images_complete(plan, plan.nodes[0], tree)


PODS = """\
# image: not/this:1
apiVersion: v1
kind: List
items:
- kind: Pod
  spec: {initContainers: [{name: a, "image": "quay.example/a:1"}]}
- kind: CronJob
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: IMAGE}]}}}}}
"""


@pytest.mark.parametrize(
    ("named", "runtime", "expected"),
    [
        ("quay.example/a:1", "containerd", None),
        (f"quay.example/a@{DIGEST}", "containerd", None),
        (f"quay.example/a:1@{DIGEST}", "containerd", None),
        (
            "quay.example/b:1",
            "containerd",
            "x.yaml:8: image quay.example/b:1 is missing in `images`",
        ),
        (f"quay.example/a@sha256:{'cd' * 32}", "containerd", "is missing in `images` by digest"),
        (
            f"quay.example/a@{DIGEST}",
            "docker, cri_dockerd: 0.3.4",
            "finds loaded images only by tag",
        ),
        ("A:1", "containerd", "x.yaml:8: image A:1 must have a repository"),
    ],
)
def test_every_image_in_a_manifest_must_be_in_the_bundle(
    tmp_path: Path, named: str, runtime: str, expected: str | None
) -> None:
    path = write_site(tmp_path, f'images: [{{ref: "quay.example/a:1@{DIGEST}"}}]\n', runtime)
    text = PODS.replace("IMAGE", f'"{named}"')
    if not expected:
        check_manifest(path, text)
        return
    with pytest.raises(ArtifactError, match=expected):
        check_manifest(path, text)
