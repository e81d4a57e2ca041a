"""`bundler addon bundle`: small bundles with one add-on and its images, and nothing else."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.addon_builds import AddonSite, make_addon_site
from support.command import run_bundler
from support.small_builds import SmallSite, read_manifest, unpack

from bundler import addon_bundles
from bundler.addon_bundles import AddonBundles
from bundler.bundle.layout import Layout, Media
from bundler.bundle.verify import verify
from bundler.errors import ConfigError
from bundler.upgrade.rollout import make_upgrade_plan

pytestmark = pytest.mark.slow
ONE, TWO = "small-one.tar.gz", "small-two.tar.gz"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> AddonSite:
    """A site whose bundles in dist/ have no add-on."""
    site = make_addon_site(tmp_path_factory.mktemp("built"))
    site.build("dist")
    return site


@pytest.fixture
def site(built: AddonSite, tmp_path: Path) -> AddonSite:
    directory = Path(shutil.copytree(built.directory, tmp_path / "site"))
    return AddonSite(SmallSite(directory))


@pytest.fixture
def dist(site: AddonSite) -> Path:
    return site.directory / "dist"


def bundle(site: AddonSite, *since: Path, output: str = "out", **media: Layout) -> AddonBundles:
    return addon_bundles.build(
        site.inputs, "web", site.directory / output, signing_key=None,
        media=Media(since=tuple(map(str, since)), **media),
    )  # fmt: skip


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".sha256")


def list_carried(tarball: Path) -> set[str]:
    """The files that a tarball holds."""
    lines = read_manifest(tarball)
    absent = {line.split()[2] for line in lines if line.startswith("# from-")}
    return {line.split()[3] for line in lines if not line.startswith("#")} - absent


def test_control_planes_get_the_add_on_and_workers_its_images(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    built = bundle(site, dist)
    assert [change.node for change in built.changes] == ["one", "two", "three"]
    assert {change.images for change in built.changes} == {("docker.io/team/app:1.0",)}
    assert [bool(change.files) for change in built.changes] == [True, False, False]
    out = site.directory / "out"
    assert list_names(out) == ["RUNBOOK.md", "SHA256SUMS", ONE, "small-three.tar.gz", TWO]
    carried = list_carried(out / ONE)
    assert "rootfs/etc/kubernetes/site-addons/web/5-objects.yaml" in carried
    assert "rootfs/opt/k8s/images/docker.io_team_app_1.0/index.json" in carried
    assert not {path for path in carried if path.startswith("rootfs/opt/k8s/bin/")}
    assert all((out / name).stat().st_size < 300 << 10 for name in (ONE, TWO))
    assert all(not verdict.faults for verdict in verify(out))


def test_the_next_full_build_has_the_same_files(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    bundle(site, dist)
    full = site.build("full")
    for name in (ONE, TWO):
        lines = [line for line in read_manifest(site.directory / "out" / name) if line[0] != "#"]
        assert lines == read_manifest(full / name)


def test_the_same_inputs_give_the_same_bytes(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    for output in ("first", "second"):
        bundle(site, dist, output=output)
    for name in list_names(site.directory / "first"):
        first, second = (site.directory / each / name for each in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_a_host_for_which_nothing_changes_gets_no_bundle(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="library/nginx:1.22")  # every worker has it already
    built = bundle(site, dist)
    assert [change.node for change in built.changes] == ["one"]
    assert (built.unchanged, built.changes[0].images) == (("two", "three"), ())
    assert list_names(site.directory / "out") == ["RUNBOOK.md", "SHA256SUMS", ONE]
    runbook = (site.directory / "out/RUNBOOK.md").read_text()
    assert "small-one/install.sh" in runbook
    assert "small-two" not in runbook


def test_nothing_is_built_if_nothing_of_the_add_on_changed(site: AddonSite) -> None:
    site.set_addons(web="team/app:1.0")
    built = bundle(site, site.build("full"))
    assert (built.files, built.changes) == ((), ())
    assert list_names(site.directory / "out") == []


def test_a_new_version_is_built_on_the_former_add_on_bundle(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    bundle(site, dist, output="first")
    site.set_addons(web="team/app:2.0", timeout="9m")
    built = bundle(site, dist, site.directory / "first", output="second")
    assert {change.images for change in built.changes} == {("docker.io/team/app:2.0",)}
    assert {change.images_removed for change in built.changes} == {("docker.io/team/app:1.0",)}
    base = next(line for line in read_manifest(site.directory / "second" / ONE) if "base" in line)
    assert base not in "\n".join(read_manifest(site.directory / "first" / ONE))


def test_ports_of_the_add_on_are_its_own(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    description = site.directory / "cluster.yaml"
    text = description.read_text()
    description.write_text(text.replace('"wait":', '"ports": ["9100/tcp"], "wait":'))
    assert "9100/tcp" in description.read_text()
    assert bundle(site, dist)


def test_images_travel_once_in_the_layout_split(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    bundle(site, dist, layout=Layout.SPLIT)
    out = site.directory / "out"
    assert len(list(out.glob("payload-*.tar"))) == 1
    layers = [line for line in read_manifest(out / TWO) if line.startswith("# from-payload ")]
    assert layers
    assert all("/blobs/sha256/" in line for line in layers)
    assert all(not verdict.faults for verdict in verify(out))


def test_a_sealed_cluster_gets_sealed_add_on_bundles(site: AddonSite) -> None:
    dist = site.build("sealed", Media(seal=True))
    site.set_addons(web="team/app:1.0")
    bundle(site, dist)
    lines = read_manifest(site.directory / "out" / ONE)
    assert any(line.startswith("# from-seal rootfs/etc/kubernetes/pki/sa.key ") for line in lines)
    shutil.rmtree(site.directory / "small.state/seals")  # other codes
    with pytest.raises(ConfigError, match="sealed with another code"):
        bundle(site, dist, output="other")


def test_plan_says_that_hosts_without_a_bundle_stay(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="library/nginx:1.22")
    bundle(site, dist)
    plan = make_upgrade_plan(dist, site.directory / "out")
    assert plan.leaving == ()
    hosts = {host.name: host for stage in plan.stages for host in stage.hosts}
    assert {name: host.kind for name, host in hosts.items()} == {
        "one": "change", "two": "nothing", "three": "nothing",
    }  # fmt: skip
    assert plan.addons == ("add-on web is applied: 1 object",)
    assert {restart.unit for restart in hosts["one"].restarts} == {"kube-addons.service"}


def change_kubelet(site: AddonSite) -> None:
    site.append("extra: {kubelet: {config: {maxPods: 99}}}\n")


def change_image(site: AddonSite) -> None:
    site.write_image("library/nginx:1.22", change="newer")


def change_program(site: AddonSite) -> None:
    site.small.change("etcd")


def add_other(site: AddonSite) -> None:
    site.set_addons(web="team/app:1.0", other="team/app:1.0")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_kubelet, ["rootfs/etc/kubernetes/kubelet-config.yaml: has other content (one, two, three)"]),
        (change_image, ["docker.io_library_nginx_1.22/blobs: belongs to an image that the add-on does not use"]),
        (change_program, ["rootfs/opt/k8s/bin/etcd: has other content (one)"]),
        (add_other, ["site-addons/addons.tsv: has other rows of other add-ons", "site-addons/other/objects.txt: is new"]),
    ],
    ids=["setting", "image", "program", "other add-on"],
)  # fmt: skip
def test_any_other_change_is_refused_with_its_files(
    site: AddonSite, dist: Path, change: Callable[[AddonSite], None], expected: Sequence[str]
) -> None:
    site.set_addons(web="team/app:1.0")
    change(site)
    with pytest.raises(ConfigError) as refused:
        bundle(site, dist)
    assert "more has changed since" in refused.value.message
    assert [text for text in expected if text not in refused.value.message] == []
    assert f"bundler build --since {dist} -o" in (refused.value.hint or "")
    assert list_names(site.directory / "out") == []


def test_an_image_that_is_listed_may_come_with_the_add_on(site: AddonSite, dist: Path) -> None:
    """A program that an add-on runs starts pods with it, so that no manifest names it."""
    site.set_addons(web="team/app:1.0", listed="team/helper:1.0")
    built = bundle(site, dist)
    assert built.changes[0].images == ("docker.io/team/app:1.0", "docker.io/team/helper:1.0")


def test_a_manifest_alone_does_not_say_which_settings_changed(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="team/app:1.0")
    manifest = site.directory / "manifest"
    manifest.write_bytes(
        (unpack(dist / TWO, site.directory / "unpacked") / "MANIFEST").read_bytes()
    )
    with pytest.raises(ConfigError, match=r"node.env: differs, and a MANIFEST alone") as refused:
        bundle(site, dist, Path(f"two={manifest}"))
    assert "(two)" in refused.value.message


def test_what_cannot_be_compared_is_refused(site: AddonSite, dist: Path) -> None:
    with pytest.raises(ConfigError, match="has no add-on web$"):
        bundle(site, dist)
    site.set_addons(web="team/app:1.0")
    with pytest.raises(ConfigError, match="no bundle of two, three"):
        bundle(site, dist / ONE)
    with pytest.raises(ConfigError, match="the new ones would replace them"):
        bundle(site, dist, output="dist")


def test_the_command_prints_the_nodes_and_the_files(site: AddonSite, dist: Path) -> None:
    site.set_addons(web="library/nginx:1.22")
    words = ["addon", "bundle", "web", "--since", str(dist), *site.small.arguments]
    done = run_bundler([*words, "-o", "out"], cwd=site.directory, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        f"out/{ONE}", "out/RUNBOOK.md",
    ]  # fmt: skip
    assert "  one: add-on web\n" in done.stderr
    assert "  no bundle for two, three: nothing of it changes there" in done.stderr
    done = run_bundler([*words, "-o", "json", "--json"], cwd=site.directory, text=True)
    data = json.loads(done.stdout)
    assert (data["format"], data["unchanged"]) == ("addon-bundle/1", ["two", "three"])
