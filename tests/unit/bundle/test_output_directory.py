"""The directory of a build: other clusters, free space, and a digest for each tarball."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.small_builds import SmallSite, make_site

from bundler import progress
from bundler.bundle.layout import Layout, Media
from bundler.bundle.verify import verify
from bundler.errors import OutputError
from bundler.packing import SMALL_FILES, estimate_space
from bundler.pipeline import build, fetch, make_target, preview
from bundler.project import load, resolve

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return make_site(tmp_path)


def set_free(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let the disk have that many free bytes."""
    patch.setattr("bundler.files.shutil.disk_usage", lambda _: SimpleNamespace(free=count))


def test_one_tarball_is_checked_by_its_own_file(site: SmallSite, tmp_path: Path) -> None:
    dist = site.build()
    alone = tmp_path / "usb"
    alone.mkdir()
    for name in ("small-two.tar.gz", "small-two.tar.gz.sha256"):
        shutil.copy(dist / name, alone)
    check = ["sha256sum", "-c", "small-two.tar.gz.sha256"]
    assert subprocess.run(check, cwd=alone, check=False).returncode == 0
    with (alone / "small-two.tar.gz").open("ab") as file:
        file.write(b"x")
    assert subprocess.run(check, cwd=alone, check=False).returncode == 1
    assert not [verdict for verdict in verify(dist) if verdict.faults]
    (dist / "small-two.tar.gz.sha256").write_text(f"{'0' * 64}  small-two.tar.gz\n")
    faults = [fault for verdict in verify(dist) for fault in verdict.faults]
    assert faults == ["small-two.tar.gz.sha256: is not the line of SHA256SUMS"]


def test_a_directory_with_another_cluster_is_refused_before_anything_changes(
    site: SmallSite,
) -> None:
    dist = site.build()
    before = {path.name: path.read_bytes() for path in dist.iterdir()}
    path = site.directory / "cluster.yaml"
    text = path.read_text()
    for name in ("other", "small-two", "sma"):  # two begin like the other's
        path.write_text(text.replace("name: small", f"name: {name}", 1))
        for action in (build, preview):
            with pytest.raises(OutputError, match="has bundles of the cluster small"):
                action(site.inputs, dist)
        assert not (site.directory / f"{name}.state").exists()
    assert {path.name: path.read_bytes() for path in dist.iterdir()} == before


@pytest.mark.parametrize("layout", Layout)
def test_a_full_disk_is_named_before_the_first_byte(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    fetch(project := load(site.inputs), resolve(project))
    set_free(monkeypatch, 5 << 20)
    with pytest.raises(OutputError, match=r"\d+ MiB are needed, 5 MiB are free; nothing") as caught:
        build(site.inputs, site.directory / "dist", media=Media(layout=layout))
    assert "-o" in (caught.value.hint or "")
    assert not list((site.directory / "dist").iterdir())
    assert not (site.directory / "small.state").exists()


def test_the_estimate_is_what_a_build_writes_and_less_where_it_replaces(site: SmallSite) -> None:
    project = load(site.inputs)
    payloads = fetch(project, resolve(project))
    empty = make_target(project, site.directory / "none", Media(), None)
    first = estimate_space(project.plan, payloads, empty)
    dist = site.build()
    written = sum(path.stat().st_size for path in dist.glob("*.tar.gz"))
    assert written <= first <= written + 3 * SMALL_FILES
    again = estimate_space(project.plan, payloads, make_target(project, dist, Media(), None))
    assert again <= first


def test_compressing_a_large_file_says_how_far_it_is(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SHOWN", 1)
    site.build()
    shown = capsys.readouterr().err
    assert "  compressing " in shown
    assert " of containerd 2" in shown
    assert " MiB in 0." in shown
