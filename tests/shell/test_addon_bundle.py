"""A bundle of `bundler addon bundle` is the next generation of a host; a later full bundle has the same files."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.addon_builds import AddonSite, make_addon_site
from support.fake_host import make_host
from support.generation_site import WENT_BACK, Site, patch_install_script
from support.shells import Sh, write_program
from support.small_builds import unpack
from support.trees import list_tree

from bundler import addon_bundles
from bundler.bundle.layout import Layout, Media
from bundler.bundle.signing import generate_key
from bundler.render.bundle_manifest import parse_manifest

pytestmark = pytest.mark.slow

WEB = "etc/kubernetes/site-addons/web/5-objects.yaml"
IMAGE = "opt/k8s/images/docker.io_team_app_1.0/index.json"


ANY_HOST = ("--skip-preflight", "programs", "--skip-preflight", "requirements")
"""The programs of the small site are text, and its Kubernetes wants a newer host than some here."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> AddonSite:
    """dist → web: the add-on comes with an image."""
    site = make_addon_site(tmp_path_factory.mktemp("site"))
    generate_key(site.directory / "release.key")
    site.build("dist", sign=site.directory / "release.key")
    site.set_addons(web="team/app:1.0")
    bundle_web(site, "web", Layout.FULL)
    return site


def bundle_web(site: AddonSite, output: str, layout: Layout) -> Path:
    addon_bundles.build(
        site.inputs, "web", site.directory / output, signing_key=site.directory / "release.key",
        media=Media(since=(f"{site.directory}/dist",), layout=layout),
    )  # fmt: skip
    return site.directory / output


@pytest.fixture(scope="session")
def dists(built: AddonSite) -> Path:
    return built.directory


@pytest.fixture(scope="session")
def split(built: AddonSite) -> Path:
    return bundle_web(built, "split", Layout.SPLIT)


@pytest.fixture(scope="session")
def full(built: AddonSite) -> str:
    """Everything, from the same cluster.yaml."""
    return built.build("full").name


@dataclass
class Staged:
    """A root directory, and how bundles are installed there."""

    sh: Sh
    dists: Path
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def run(self, script: Path, *arguments: object, **environment: str) -> tuple[int, str]:
        (self.root / "etc").mkdir(parents=True, exist_ok=True)
        done = self.sh(script, *map(str, arguments), DESTDIR=str(self.root), **environment)
        return done.returncode, done.stdout + done.stderr

    def install(
        self, dist: str, node: str, *arguments: object, **environment: str
    ) -> tuple[int, str]:
        bundle = self.directory / dist / f"small-{node}"
        if not bundle.exists():
            unpack(self.dists / dist / f"small-{node}.tar.gz", bundle.parent)
        return self.run(bundle / "install.sh", *arguments, **environment)

    def tree(self) -> dict[str, str]:
        """All files but the journal, which holds times."""
        tree = list_tree(self.root)
        tree.pop("var/lib/bundler/journal", None)
        return tree


@pytest.fixture
def staged(sh: Sh, dists: Path, tmp_path: Path) -> Staged:
    return Staged(sh, dists, tmp_path / "host")


@pytest.mark.parametrize("node", ["one", "two"])
def test_an_add_on_bundle_installs_what_the_next_full_bundle_has(
    staged: Staged, full: str, node: str
) -> None:
    assert staged.install("dist", node)[0] == 0
    trust = ("--trust", staged.dists / "release.pub")
    code, said = staged.install("web", node, "--dry-run", *trust)
    lines = [line.split() for line in said.splitlines()]
    assert (code, ["new", f"/{IMAGE}"] in [[line[0], line[-1]] for line in lines]) == (0, True), (
        said
    )
    code, said = staged.install("web", node, *trust)
    assert code == 0, said
    assert (staged.root / IMAGE).is_file()
    assert (staged.root / WEB).exists() is (node == "one")
    after = staged.tree()
    assert staged.install("web", node) == (0, f"{node}: nothing to do\n")
    assert staged.install(full, node) == (0, f"{node}: nothing to do\n")
    assert staged.tree() == after


def test_an_add_on_bundle_is_refused_where_other_bundles_are_installed(staged: Staged) -> None:
    code, said = staged.install("web", "two")
    assert (code, "no bundle is installed here" in said) == (3, True)
    assert staged.install("dist", "two")[0] == 0
    manifest = staged.root / "opt/k8s/bundle/MANIFEST"
    manifest.write_text(manifest.read_text().replace("0755", "0750", 1))
    code, said = staged.install("web", "two")
    assert (code, "fix: take this node's complete bundle" in said) == (3, True)


def test_workers_take_the_images_from_one_payload_file(staged: Staged, split: Path) -> None:
    (payload,) = split.glob("payload-*.tar")
    assert staged.install("dist", "two")[0] == 0
    code, said = staged.install("split", "two")
    assert (code, f"fix: run install.sh --payload {payload.name}" in said) == (3, True)
    code, said = staged.install("split", "two", "--payload", payload)
    assert code == 0, said
    assert staged.install("web", "two") == (0, "two: nothing to do\n")


def test_a_killed_add_on_bundle_is_completed_by_the_next_run(
    staged: Staged, full: str, tmp_path: Path
) -> None:
    assert staged.install("dist", "one")[0] == 0
    count = tmp_path / "count"
    count.write_text("0")
    write_program(
        tmp_path / "bin/mv",
        f"n=$(($(cat {count}) + 1)); echo $n >{count}; [ $n -ne 2 ] || kill -9 $PPID\n"
        f'exec {shutil.which("mv")} "$@"\n',
    )
    assert staged.install("web", "one", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")[0] == -9
    assert staged.install("web", "one")[0] == 0
    assert (staged.root / WEB).is_file()
    assert staged.install(full, "one") == (0, "one: nothing to do\n")


def test_uninstall_removes_the_add_on_too(staged: Staged) -> None:
    for dist in ("dist", "web"):
        assert staged.install(dist, "one")[0] == 0
    script = staged.root / "opt/k8s/bundle/uninstall.sh"
    code, said = staged.run(script, "--yes")
    assert code == 0, said
    assert not {path for path in staged.tree() if path.startswith(("etc/kubernetes", "opt"))}
    assert not (staged.root / "var/lib/bundler").exists()


@pytest.fixture
def site(sh: Sh, dists: Path, tmp_path: Path) -> Site:
    """A worker as a fake host with units: 1 is its full bundle, 2 that of the add-on."""
    one, two = (
        unpack(dists / each / "small-two.tar.gz", tmp_path / each) for each in ("dist", "web")
    )
    host = make_host(sh, one, tmp_path / "host")
    for bundle in (one, two):
        patch_install_script(bundle, host)
        rewrite(bundle)
    base = parse_manifest((one / "MANIFEST").read_bytes(), "dist").public_identity
    rename_base(two, base)
    return Site(host=host, bundles=[one, two])


def rewrite(bundle: Path) -> None:
    """Write the line of install.sh in the manifest again; the lines of a delta stay."""
    content = (bundle / "install.sh").read_bytes()
    line = f"{hashlib.sha256(content).hexdigest()} 0755 {len(content)} install.sh"
    manifest = bundle / "MANIFEST"
    lines = manifest.read_text().splitlines()
    manifest.write_text(
        "".join(f"{line if old.endswith(' install.sh') else old}\n" for old in lines)
    )
    (bundle / "MANIFEST.sig").unlink(missing_ok=True)


def rename_base(bundle: Path, identity: str) -> None:
    manifest = bundle / "MANIFEST"
    lines = manifest.read_text().splitlines()
    assert lines[0].startswith("# base ")
    manifest.write_text("".join(f"{line}\n" for line in (f"# base {identity}", *lines[1:])))


def test_an_add_on_bundle_is_a_generation_and_the_host_can_go_back(site: Site) -> None:
    assert site.install(1, *ANY_HOST).returncode == 0
    first = site.installed()
    done = site.install(2, *ANY_HOST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.states(), site.current()) == ({"1": "healthy", "2": "healthy"}, "2")
    second = site.installed()
    assert IMAGE in second
    assert IMAGE not in first
    own = site.root / "opt/k8s/bundle/install.sh"
    assert site.run(own, *ANY_HOST).stdout == "two: nothing to do\n"
    done = site.run(own, "--rollback", *ANY_HOST)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.installed(), site.current()) == (first, "1")
    assert site.run(own, "--rollback", "2", *ANY_HOST).returncode == 0
    assert site.installed() == second


def test_the_host_goes_back_from_an_add_on_bundle_that_is_not_healthy(site: Site) -> None:
    assert site.install(1, *ANY_HOST).returncode == 0
    first = site.installed()
    script = site.bundles[1] / "install.sh"
    script.write_text(script.read_text().replace("echo ready); }", "echo failed); }"))
    rewrite(site.bundles[1])
    done = site.install(2, *ANY_HOST)
    assert done.returncode == WENT_BACK, done.stdout + done.stderr
    assert (site.installed(), site.current()) == (first, "1")
