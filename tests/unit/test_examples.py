"""Every example, and every minor, renders; what is rendered belongs to its minor."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bundler.build import Inputs, preview, render
from bundler.cache import Cache
from bundler.components import MINORS, RUNTIMES
from bundler.settings import accepted_flags

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


@pytest.mark.parametrize("name", ["single", "production"])
def test_an_example_is_sound_and_all_its_files_are_pinned(
    tmp_path: Path, make_archive: Callable[[Path, str], str], name: str
) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    (tmp_path / "cluster.yaml").write_text(text)
    for image in yaml.safe_load(text)["images"]:
        make_archive(tmp_path / image["file"], image["ref"])
    inputs = Inputs(
        description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache"), offline=True
    )
    shown = preview(inputs)
    assert all(artifact.source.startswith("catalog: ") for artifact, _ in shown.artifacts)
    assert len(shown.bundles) == len(shown.cluster.nodes)


def test_the_readmes_smallest_description_needs_no_pin_of_the_users(
    tmp_path: Path, make_archive: Callable[[Path, str], str]
) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    block = textwrap.dedent(
        readme[readme.index("   apiVersion: bundler/v1alpha1") :].split("```")[0]
    )
    (tmp_path / "cluster.yaml").write_text(block)
    for image in yaml.safe_load(block)["images"]:
        make_archive(tmp_path / image["file"], image["ref"])
    shown = preview(Inputs(description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache")))
    assert all(artifact.source.startswith("catalog: ") for artifact, _ in shown.artifacts)


ALLOWED = [
    (minor, engine)
    for minor in MINORS
    for engine, row in RUNTIMES.items()
    if int(row.since[2:]) <= int(minor[2:]) < int(row.until[2:])
]


@pytest.mark.parametrize(("minor", "engine"), ALLOWED, ids=[f"{m}-{e}" for m, e in ALLOWED])
def test_every_rendered_flag_is_one_that_the_program_of_the_minor_takes(
    tmp_path: Path, make_archive: Callable[[Path, str], str], minor: str, engine: str
) -> None:
    make_archive(tmp_path / "pause.tar", "registry.k8s.io/pause:3.2")
    digest = "a" * 64
    (tmp_path / "cluster.yaml").write_text(f"""\
apiVersion: bundler/v1alpha1
name: minor
kubernetes: {{version: {minor}.0}}
runtime: {{engine: {engine}}}
nodes: [{{name: one, address: 192.0.2.1, roles: [etcd, control-plane, worker]}}]
images: [{{ref: "registry.k8s.io/pause:3.2", file: pause.tar}}]
artifacts: {{kubernetes-server: {{sha256: {digest}}}}}
""")
    inputs = Inputs(
        description=tmp_path / "cluster.yaml", cache=Cache(tmp_path / "cache"), offline=True
    )
    render(inputs, tmp_path / "trees", text_only=True)
    units = tmp_path / "trees" / "one" / "rootfs" / "etc" / "systemd" / "system"
    for program in PROGRAMS:
        unit = (units / f"{program}.service").read_text()
        used = set(re.findall(r"^    --([a-z0-9-]+)=", unit, re.MULTILINE))
        assert used
        assert used <= accepted_flags(program, minor), program
