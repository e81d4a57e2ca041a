"""Images on the host: archives made from shared blobs, loaded once, and again if missing."""

import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.descriptions import write_upstream
from support.registries import MadeImage, make_layer, sha256, write_oci_directory
from support.shells import Sh, write_program
from support.small_builds import SmallSite, make_site, unpack

from bundler.bundle.layout import Layout, Media

PAUSE, NGINX = "registry.k8s.io/pause:3.2", "docker.io/library/nginx:1.22"
SHARED = make_layer("shared", b"x" * 20_000)
IMAGES = {
    PAUSE: MadeImage([SHARED, make_layer("pause", b"pause")]),
    NGINX: MadeImage([SHARED, make_layer("nginx", b"nginx" * 500)]),
}

DOCKER = r"""
case "$1 $2" in
    "version --format") [ ! -e {state}/runtime-is-down ] && echo 20.10 ;;
    "image inspect") cat "{state}/images/$(printf '%s' "$5" | tr '/:' '__')" 2>/dev/null ;;
    "load -q")
        n=$(ls {state}/loads | wc -l)
        cat >{state}/loads/$n.tar
        [ ! -e {state}/fail ] || {{ echo "no space left on device"; exit 1; }}
        python3 -c '
import json, hashlib, sys, tarfile
tar = tarfile.open(sys.argv[1])
for entry in json.load(tar.extractfile("manifest.json")):
    for layer in entry["Layers"]:
        tar.extractfile(layer).read()
    digest = hashlib.sha256(tar.extractfile(entry["Config"]).read()).hexdigest()
    for tag in entry["RepoTags"]:
        open("{state}/images/" + tag.replace("/", "_").replace(":", "_"), "w").write("sha256:" + digest)
' {state}/loads/$n.tar
        ;;
esac
"""
CTR = r"""
[ "$1 $2" = "-n k8s.io" ] || exit 9
shift 2
case "$1 $2" in
    "images ls")
        [ "$3" != -q ] || {{ [ ! -e {state}/runtime-is-down ]; exit; }}
        file="{state}/images/$(printf '%s' "${{3#name==}}" | tr '/:' '__')"
        echo "REF TYPE DIGEST"
        [ ! -f "$file" ] || echo "x y $(cat "$file")"
        ;;
    "content get") cat "{state}/content/$3" ;;
    "images label") echo "$3 $4" >>{state}/labels ;;
    "images import")
        [ "$3" = - ] || exit 9
        n=$(ls {state}/loads | wc -l)
        cat >{state}/loads/$n.tar
        python3 -c '
import json, sys, tarfile
tar = tarfile.open(sys.argv[1])
for entry in json.load(tar.extractfile("index.json"))["manifests"]:
    name = entry["annotations"]["io.containerd.image.name"]
    content = tar.extractfile("blobs/sha256/" + entry["digest"][7:]).read()
    open("{state}/content/" + entry["digest"], "wb").write(content)
    open("{state}/images/" + name.replace("/", "_").replace(":", "_"), "w").write(entry["digest"])
' {state}/loads/$n.tar
        ;;
esac
"""


@pytest.fixture(scope="session", params=["containerd", "docker"])
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> SmallSite:
    """Two images that share a layer, with either runtime; in full and without what there was."""
    site = make_site(tmp_path_factory.mktemp("images"))
    write_oci_directory(site.directory / "oci", {ref: [image] for ref, image in IMAGES.items()})
    path = site.directory / "cluster.yaml"
    text = path.read_text().replace("pause.tar", "oci").replace("nginx.tar", "oci")
    text = text.replace("1.36.2", "1.20.2").replace("pause:3.10.2", "pause:3.2")
    path.write_text(text.replace("containerd", request.param))
    write_upstream(site.directory, path)
    site.build("whole")
    site.build("split", Media(layout=Layout.SPLIT))
    site.build("delta", Media(since=(str(site.directory / "whole"),)))
    return site


@dataclass
class Host:
    """A root directory with an installed bundle, and a container runtime made of files."""

    sh: Sh
    root: Path
    state: Path
    bin: Path

    def keep(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """What the timer does."""
        script = self.root / "opt/k8s/libexec/keep-images.sh"
        path = environment.pop("PATH", f"{self.bin}:{os.environ['PATH']}")
        return self.sh(script, DESTDIR=str(self.root), PATH=path, **environment)

    @property
    def held(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in (self.state / "images").iterdir()}

    @property
    def loads(self) -> list[dict[str, bytes]]:
        """The archives that the runtime was given."""
        found = []
        for path in sorted((self.state / "loads").iterdir()):
            with tarfile.open(path) as tar:
                found.append({m.name: tar.extractfile(m).read() for m in tar if m.isreg()})  # type: ignore[union-attr]
        return found

    def lose(self, reference: str) -> None:
        (self.state / "images" / reference.replace("/", "_").replace(":", "_")).unlink()


def make_host(sh: Sh, site: SmallSite, directory: Path, *dists: str) -> Host:
    """A host on which these bundles were installed, one after another."""
    host = Host(sh, directory / "root", directory / "state", directory / "bin")
    (host.root / "etc").mkdir(parents=True)
    for name in ("images", "loads", "content"):
        (host.state / name).mkdir(parents=True)
    write_program(host.bin / "docker", DOCKER.format(state=host.state))
    write_program(host.bin / "ctr", CTR.format(state=host.state))
    write_program(host.bin / "systemctl", "exit 0\n")
    for dist in dists:
        bundle = unpack(site.directory / dist / "small-two.tar.gz", directory / dist)
        payload = [str(path) for path in (site.directory / dist).glob("payload-*.tar")]
        arguments = ["--payload", *payload] if payload else []
        done = sh(bundle / "install.sh", *arguments, DESTDIR=str(host.root))
        assert done.returncode == 0, done.stderr
    return host


@pytest.mark.slow
@pytest.mark.parametrize("dists", [["whole"], ["split"], ["whole", "delta"]], ids="-".join)
def test_every_image_is_loaded_from_the_kept_copy_and_only_once(
    sh: Sh, built: SmallSite, tmp_path: Path, dists: list[str]
) -> None:
    host = make_host(sh, built, tmp_path, *dists)
    blobs = host.root / "opt/k8s/images/blobs/sha256"
    expected = {digest for image in IMAGES.values() for digest in image.contents}
    assert {f"sha256:{path.name}" for path in blobs.iterdir()} == expected
    done = host.keep()
    assert done.returncode == 0, done.stderr
    assert "2 images, 2 of them loaded again" in done.stdout
    assert len(host.held) == 2
    for (reference, image), archive in zip(IMAGES.items(), host.loads, strict=True):
        names = {
            f"blobs/sha256/{digest[7:]}": content for digest, content in image.contents.items()
        }
        assert {name: archive[name] for name in names} == names
        assert set(archive) - set(names) == {"oci-layout", "index.json", "manifest.json"}
        (entry,) = json.loads(archive["manifest.json"])
        assert entry["RepoTags"] == [reference]
        assert [archive[name] for name in entry["Layers"]] == image.blobs
        (entry,) = json.loads(archive["index.json"])["manifests"]
        assert (entry["digest"], entry["size"]) == (sha256(image.manifest), len(image.manifest))
    again = host.keep()
    assert "2 images, 0 of them loaded again" in again.stdout
    assert len(host.loads) == 2


@pytest.mark.slow
def test_only_the_missing_image_is_loaded_again(sh: Sh, built: SmallSite, tmp_path: Path) -> None:
    host = make_host(sh, built, tmp_path, "whole")
    host.keep()
    before = host.held
    host.lose(NGINX)
    done = host.keep()
    assert (done.returncode, f"loading {NGINX}" in done.stdout) == (0, True)
    assert PAUSE not in done.stdout
    assert (host.held, len(host.loads)) == (before, 3)
    assert f"loaded {NGINX}" in (host.root / "var/lib/bundler/journal").read_text()


@pytest.mark.slow
def test_containerd_is_told_to_pin_what_was_loaded(
    sh: Sh, built: SmallSite, tmp_path: Path
) -> None:
    host = make_host(sh, built, tmp_path, "whole")
    host.keep()
    labels = host.state / "labels"
    pinned = labels.read_text().splitlines() if labels.exists() else []
    runtime = "{engine: docker}" in (built.directory / "cluster.yaml").read_text()
    expected = [f"{ref} io.cri-containerd.pinned=pinned" for ref in IMAGES]
    assert pinned == ([] if runtime else expected)


@pytest.mark.slow
def test_busybox_tar_writes_the_archives_too(sh: Sh, built: SmallSite, tmp_path: Path) -> None:
    host = make_host(sh, built, tmp_path, "whole")
    for name in ("tar", "awk", "sed", "mktemp"):
        write_program(host.bin / name, f'exec busybox {name} "$@"\n')
    assert host.keep().returncode == 0
    assert [len(archive) for archive in host.loads] == [7, 7]
    assert len(host.held) == 2


@pytest.mark.slow
def test_the_timer_does_nothing_while_install_sh_runs(
    sh: Sh, built: SmallSite, tmp_path: Path
) -> None:
    host = make_host(sh, built, tmp_path, "whole")
    lock = host.root / "var/lib/bundler/lock"
    lock.mkdir()
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(") ")[2].split()[19]
    (lock / "owner").write_text(f"{os.getpid()} {start}\n")
    done = host.keep()
    assert (done.returncode, "nothing to do" in done.stdout) == (0, True)
    assert host.loads == []


@pytest.mark.slow
def test_a_load_that_fails_says_why(sh: Sh, built: SmallSite, tmp_path: Path) -> None:
    host = make_host(sh, built, tmp_path, "whole")
    kept = host.root / "opt/k8s/images/registry.k8s.io_pause_3.2/blobs"
    digest = kept.read_text().split()[0]
    (host.root / "opt/k8s/images/blobs/sha256" / digest).unlink()
    done = host.keep()
    assert done.returncode == 1
    assert f"{PAUSE} could not be loaded from" in done.stderr
    assert f"{digest} is missing: run install.sh of the bundle" in done.stderr
    assert host.loads == []


@pytest.mark.slow
def test_a_name_by_digest_is_added_to_an_image_that_is_there_by_its_tag(
    sh: Sh, tmp_path: Path
) -> None:
    """Pods of add-ons name images by digest; the host may have them from an earlier bundle."""
    site = make_site(tmp_path / "site")
    write_oci_directory(site.directory / "oci", {ref: [image] for ref, image in IMAGES.items()})
    digest = sha256(IMAGES[NGINX].manifest)
    path = site.directory / "cluster.yaml"
    text = path.read_text().replace("pause.tar", "oci").replace("nginx.tar", "oci")
    text = text.replace("pause:3.10.2", "pause:3.2").replace("1.36.2", "1.20.2")
    path.write_text(text.replace(NGINX, f"{NGINX}@{digest}"))
    write_upstream(site.directory, path)
    site.build("whole")
    host = make_host(sh, site, tmp_path, "whole")
    assert host.keep().returncode == 0
    assert len(host.loads) == 2  # one archive has both names
    by_digest = f"docker.io/library/nginx@{digest}"
    host.lose(by_digest)
    assert host.keep().returncode == 0
    assert len(host.loads) == 3
    assert len(host.held) == 3
    assert host.keep().returncode == 0
    assert len(host.loads) == 3
