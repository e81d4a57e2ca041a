"""The runbook names every file, every host in rollout order, and commands that exist."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.small_builds import make_site, read_manifest

from bundler.bundle.layout import Layout, Media
from bundler.bundle.signing import generate_key
from bundler.bundle.verify import verify
from bundler.pipeline import build


@pytest.mark.parametrize(
    "media",
    [Media(), Media(split=20000), Media(layout=Layout.SPLIT), Media(layout=Layout.SPLIT, split=9000)],
    ids=["full", "volumes", "split", "split-volumes"],
)  # fmt: skip
@pytest.mark.slow
def test_every_file_is_named_with_the_start_of_its_digest(tmp_path: Path, media: Media) -> None:
    dist = make_site(tmp_path / "site").build("dist", media)
    text = (dist / "RUNBOOK.md").read_text()
    said = dict(re.findall(r"^\| (\S+) \|.*\| `([0-9a-f ]+)` \|$", text, re.MULTILINE))
    files = {path.name for path in dist.iterdir()} - {"RUNBOOK.md", "SHA256SUMS", "join.sh"}
    # join.sh reads the digest of a file that comes in volumes: it is carried, and named too
    files = {name for name in files if media.split or not name.endswith(".sha256")}
    assert set(said) == files
    for name, spoken in said.items():
        digest = hashlib.sha256((dist / name).read_bytes()).hexdigest()
        assert spoken.replace(" ", "") == digest[:16]
        assert spoken.count(" ") == 3
    assert ("join.sh small-one.tar.gz" in text) == (media.split is not None)
    assert ("--payload payload-" in text) == (media.layout is Layout.SPLIT)
    assert "RUNBOOK.md" in {verdict.name for verdict in verify(dist)}
    assert "{" not in text


@pytest.mark.slow
def test_it_says_until_when_workers_can_join(tmp_path: Path) -> None:
    text = (make_site(tmp_path / "site").build() / "RUNBOOK.md").read_text()
    end = datetime.now(UTC) + timedelta(days=30)
    assert f"the first token ends on\n{end:%Y-%m-%d} " in text


def test_control_planes_come_before_workers(tmp_path: Path) -> None:
    text = (make_site(tmp_path / "site").build() / "RUNBOOK.md").read_text()
    places = [text.index(f"**{node}**") for node in ("one", "two", "three")]
    assert places == sorted(places)
    assert places[0] < text.index("### Workers") < places[1]


@pytest.mark.slow
def test_the_same_build_has_the_same_runbook_and_a_delta_is_named(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    first = (site.build("first") / "RUNBOOK.md").read_bytes()
    assert (site.build("second") / "RUNBOOK.md").read_bytes() == first
    delta = Media(since=(f"one={tmp_path}/MANIFEST",))
    lines = read_manifest(tmp_path / "site/first/small-one.tar.gz")
    (tmp_path / "MANIFEST").write_text("".join(f"{line}\n" for line in lines))
    text = (site.build("delta", delta) / "RUNBOOK.md").read_text()
    assert text.count("a delta to the installed bundle") == 1


@pytest.mark.slow
def test_a_signed_build_is_installed_with_trust(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    generate_key(tmp_path / "release.key")
    build(site.inputs, tmp_path / "dist", signing_key=tmp_path / "release.key")
    text = (tmp_path / "dist/RUNBOOK.md").read_text()
    assert text.count("--trust RELEASE.pub") == 6
    assert "openssl dgst -sha256 -verify RELEASE.pub" in text


@pytest.mark.slow
def test_accepted_weak_settings_are_listed(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    assert "weaken" not in (site.build("plain") / "RUNBOOK.md").read_text()
    description = site.inputs.description
    description.write_text(
        description.read_text()
        + "security: {accept: [apiserver-profiling]}\nextra: {kube-apiserver: {flags: {profiling: true}}}\n"
    )
    text = (site.build("weak") / "RUNBOOK.md").read_text()
    assert "| apiserver-profiling | `extra.kube-apiserver.flags.profiling` | CIS 1.2.15" in text


@pytest.mark.slow
def test_what_cannot_hold_of_the_profile_is_listed(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    assert "--cis" not in (site.build("plain") / "RUNBOOK.md").read_text()
    description = site.inputs.description
    description.write_text(description.read_text() + "profile: stig\n")
    text = (site.build("hardened") / "RUNBOOK.md").read_text()
    assert "The cluster has the profile `stig`." in text
    assert "| CIS 4.2.7, STIG V-242404 | the node has the name of its host | manual | " in text


IN_2030 = "1893456000"


@pytest.mark.slow
def test_ended_release_lines_are_listed_by_the_day_of_the_build_and_not_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path / "site")
    text = (site.build("table") / "RUNBOOK.md").read_text()
    assert "stay open" not in text
    assert "\n\nUpstream maintains until:\n\n- kubernetes-1.36 (1.36.2): 2027-06-28\n" in text
    monkeypatch.setenv("SOURCE_DATE_EPOCH", IN_2030)
    text = (site.build("later") / "RUNBOOK.md").read_text()
    assert "stay open. Compared on 2030-01-01." in text
    assert "| kubernetes-1.36 (1.36.2) | 2027-06-28 | " in text
    assert "| not accepted |" in text
    assert "- kubernetes-1.36" not in text


@pytest.mark.slow
def test_the_reason_for_an_ended_release_line_is_in_the_runbook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", IN_2030)
    site = make_site(tmp_path / "site")
    accept = "lifecycle: {accept: {kubernetes-1.36: 'the vendor | supports it'}}"
    site.inputs.description.write_text(f"{site.inputs.description.read_text()}\n{accept}\n")
    text = (site.build() / "RUNBOOK.md").read_text()
    assert re.search(
        r"^\| kubernetes-1\.36 .* \| the vendor \\\| supports it \|$", text, re.MULTILINE
    )
