"""Scripts that are rendered, not copied: shellcheck reads them as they reach the hosts."""

import subprocess
from pathlib import Path

import pytest
import yaml
from descriptions import write_archive

from bundler.build import render
from bundler.cache import Cache
from bundler.gather import Inputs

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["tutorial", "production", "single"])
def test_every_script_of_every_example_is_sound(tmp_path: Path, name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    (tmp_path / "cluster.yaml").write_text(text)
    for image in yaml.safe_load(text)["images"]:
        if "file" in image:
            write_archive(tmp_path / image["file"], image["ref"])
    inputs = Inputs(description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache"))
    trees = render(inputs, tmp_path / "trees", text_only=True)
    scripts = [
        path
        for tree in trees
        for path in sorted(tree.rglob("libexec/*"))
        if path.read_bytes().startswith(b"#!/bin/sh")
    ]
    assert len(scripts) > 3
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for script in scripts:
        assert script.stat().st_mode & 0o111, f"{script} cannot be run"
