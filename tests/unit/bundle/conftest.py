"""Small builds in every layout."""

import shutil
from pathlib import Path

import pytest
from support.media import PUBLIC, SPLIT
from support.small_builds import SmallSite, make_site

from bundler.bundle.layout import Media


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    """Builds: dist (complete), shared (split), volumes, public; only etcd differs in `changed`."""
    site = make_site(tmp_path_factory.mktemp("site"))
    site.build("dist")
    site.build("shared", SPLIT)
    site.build("public", PUBLIC)
    site.build("volumes", Media(split=60_000))
    site.change("etcd")
    site.build("changed", Media(since=(str(site.directory / "dist"),)))
    site.build("changed-full")
    return site


@pytest.fixture
def site(built: SmallSite, tmp_path: Path) -> SmallSite:
    """A copy of the builds that a test may change."""
    shutil.copytree(built.directory, tmp_path / "site")
    return SmallSite(tmp_path / "site")
