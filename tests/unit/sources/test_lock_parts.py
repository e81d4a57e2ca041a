"""The files that cluster.yaml names: their digests in the lock and in the provenance."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.descriptions import write_upstream

from bundler.cache.store import Cache
from bundler.downloads import update_lock
from bundler.errors import ConfigError
from bundler.project import Inputs, check, load, resolve
from bundler.sources.lock import lock_path, read_lock


@pytest.fixture
def inputs(description: Path) -> Inputs:
    """A cluster whose audit settings are in a base, and one worker in a table."""
    directory = description.parent
    cluster = yaml.safe_load(description.read_text())
    worker = cluster["nodes"].pop()
    cluster |= {"include": "base.yaml", "nodes_from": "racks/a.csv"}
    description.write_text(yaml.safe_dump(cluster))
    (directory / "base.yaml").write_text("monitoring: {textfile_dir: /var/lib/textfiles}\n")
    (directory / "racks").mkdir()
    (directory / "racks/a.csv").write_text(
        f"name,address,roles\n{worker['name']},{worker['address']},worker\n"
    )
    return Inputs(
        description=description, cache=Cache(directory / "cache"), offline=True,
        pins=write_upstream(directory, description), mirrors=(str(directory / "mirror"),),
    )  # fmt: skip


def test_a_file_that_changed_after_the_lock_is_a_warning(
    inputs: Inputs, capsys: pytest.CaptureFixture[str]
) -> None:
    update_lock(inputs, [])
    lock = read_lock(lock_path(inputs.description))
    assert set(lock.parts or {}) == {"base.yaml", "racks/a.csv"}
    check(inputs)
    assert "since it was locked" not in capsys.readouterr().err
    base = inputs.description.parent / "base.yaml"
    base.write_text(f"{base.read_text()}# reviewed\n")
    check(inputs)
    said = capsys.readouterr().err
    assert (
        "base.yaml has changed since it was locked: check what changed, then run: bundler lock"
        in said
    )
    assert "racks" not in said
    update_lock(inputs, [])
    check(inputs)
    assert "has changed" not in capsys.readouterr().err


def test_strict_refuses_a_file_that_is_not_as_in_the_lock(inputs: Inputs) -> None:
    update_lock(inputs, [])
    cluster = yaml.safe_load(inputs.description.read_text())
    del cluster["include"]
    inputs.description.write_text(yaml.safe_dump(cluster))
    project = load(inputs)
    strict = replace(project, inputs=replace(inputs, strict=True))
    with pytest.raises(ConfigError, match="base.yaml is in the lock, and cluster.yaml names it no"):
        resolve(strict)


def test_a_cluster_of_one_file_has_no_parts_in_its_lock(description: Path) -> None:
    directory = description.parent
    inputs = Inputs(
        description=description, cache=Cache(directory / "cache"), offline=True,
        pins=write_upstream(directory, description), mirrors=(str(directory / "mirror"),),
    )  # fmt: skip
    update_lock(inputs, [])
    assert "parts:" not in lock_path(description).read_text()


def test_the_digests_of_a_description_do_not_depend_on_its_directory(
    inputs: Inputs, tmp_path: Path
) -> None:
    digests = dict(load(inputs).digests)
    assert {"cluster.yaml", "base.yaml", "racks/a.csv"} <= set(digests)
    elsewhere = tmp_path / "elsewhere" / "deep"
    shutil.copytree(inputs.description.parent, elsewhere / "site")
    images = inputs.description.parents[1] / ".lab"
    shutil.copytree(images, elsewhere / ".lab")
    moved = Inputs(
        description=elsewhere / "site" / inputs.description.name, cache=inputs.cache, offline=True,
        pins=inputs.pins,
    )  # fmt: skip
    assert dict(load(moved).digests) == digests
