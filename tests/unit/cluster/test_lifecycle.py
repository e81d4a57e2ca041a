"""Release lines that upstream no longer maintains: the table, the warnings, what is accepted."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bundler.cache.store import Cache
from bundler.catalog import list_versions
from bundler.catalog.lifecycles import READ, find_lifecycle, list_lifecycles, list_lines
from bundler.cluster.components import MINORS, key_of
from bundler.cluster.lifecycle import list_lines_in_use
from bundler.cluster.loader import load_cluster
from bundler.cluster.os_packages import RELEASES
from bundler.errors import ConfigError
from bundler.project import Inputs, load

TODAY = date(2026, 11, 30)
NODES = [{"name": "one", "address": "192.0.2.1", "roles": ["etcd", "control-plane", "worker"]}]


def write(tmp_path: Path, version: str, **more: Any) -> Path:
    path = tmp_path / "cluster.yaml"
    document = {
        "apiVersion": "bundler/v1alpha1", "name": "x", "kubernetes": {"version": version},
        "runtime": {"engine": "containerd"}, "nodes": NODES, **more,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path


def warn(path: Path, today: date = TODAY) -> dict[str, str]:
    """Line → its warning."""
    loaded = load_cluster(path, today=today)
    assert set(loaded.ended) <= set(loaded.warnings)
    return {row.name: line for line, row in loaded.ended.items()}


def test_every_row_has_a_source_and_lines_go_from_old_to_new() -> None:
    for row in list_lifecycles():
        assert row.source, row
        assert row.last == "" or row.holds(row.last), row
        assert row.last == "" or row.ends, row
    for component in {row.component for row in list_lifecycles()}:
        lines = [key_of(row.line) for row in list_lines(component)]
        assert lines == sorted(set(lines)), component


def test_every_version_that_a_build_can_take_has_a_line() -> None:
    versions = {
        component: list_versions(component)
        for component in ("etcd", "docker", "containerd", "runc")
    } | {"kubernetes": tuple(f"{minor}.0" for minor in MINORS)}
    missing = [
        f"{component} {version}"
        for component, found in versions.items()
        for version in found
        if not find_lifecycle(component, version)
    ]
    assert missing == []
    assert {row.name for row in list_lifecycles()} >= set(RELEASES)


def test_an_old_minor_is_named_with_its_end_and_the_way_to_one_that_is_maintained(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "1.20.2", runtime={"engine": "docker", "version": "20.10.23"})
    said = warn(path)
    assert set(said) == {"kubernetes-1.20", "etcd-3.4", "docker-20.10"}
    assert re.fullmatch(
        rf"{re.escape(str(path))}:\d+:\d+: kubernetes\.version: Kubernetes 1\.20 reached its end of life on"
        r" 2022-02-28 \(last release 1\.20\.15\): 1\.35 is maintained \(until 2027-02-28\), 15 upgrades"
        r" away; the next is 1\.21 \(kubernetes-1\.20\)",
        said["kubernetes-1.20"],
    )
    assert (
        "runtime.version: Docker 20.10 reached its end of life on 2023-12-10"
        in said["docker-20.10"]
    )
    assert "upgrade Kubernetes first" in said["docker-20.10"]
    assert (
        "3.5.33 is maintained (until 2027-07-08), one upgrade away; the next is 3.5"
        in said["etcd-3.4"]
    )


@pytest.mark.parametrize(
    ("today", "names"),
    [(date(2026, 10, 27), set()), (date(2026, 10, 28), {"kubernetes-1.34"})],
)
def test_a_line_is_maintained_on_its_last_day(tmp_path: Path, today: date, names: set[str]) -> None:
    path = write(tmp_path, "1.34.2", runtime={"engine": "containerd", "version": "2.3.4"})
    assert set(warn(path, today)) == names


def test_a_distribution_is_a_line_too(tmp_path: Path) -> None:
    path = write(
        tmp_path, "1.36.2", runtime={"engine": "containerd", "version": "2.3.4"},
        packages={"os": "fedora-42"},
    )  # fmt: skip
    (line,) = warn(path).values()
    assert (
        "packages.os: fedora 42 reached its end of life on 2026-05-27: fedora-43 is maintained"
        in line
    )


def test_strict_refuses_what_has_ended_unless_it_is_accepted_with_a_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "1.20.2")
    strict = Inputs(description=path, cache=Cache(tmp_path), strict=True)
    with pytest.raises(ConfigError, match="Kubernetes 1.20 reached its end of life") as caught:
        load(strict)
    assert (
        "lifecycle: {accept: {containerd-1.6: REASON, etcd-3.4: REASON, kubernetes-1.20: REASON}}"
        in (caught.value.hint or "")
    )
    names = ("containerd-1.6", "etcd-3.4", "kubernetes-1.20")
    write(tmp_path, "1.20.2", lifecycle={"accept": dict.fromkeys(names, "the vendor supports it")})
    assert load_cluster(path, today=TODAY).ended == {}
    load(strict)


def test_strict_of_a_repeated_build_refuses_only_what_had_ended_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "1.20.2")
    then = int(datetime(2021, 6, 1, tzinfo=UTC).timestamp())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(then))
    load(Inputs(description=path, cache=Cache(tmp_path), strict=True))
    assert "Kubernetes 1.20 reached its end of life on 2022-02-28" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (
            {"kuberntes-1.20": "because"},
            "has no release line of this name; did you mean 'kubernetes-1.20'",
        ),
        ({"kubernetes-1.21": "because"}, "nothing in this file uses kubernetes-1.21: remove it"),
        ({"kubernetes-1.20": ""}, r"lifecycle\.accept\.kubernetes-1\.20"),
        ({"kubernetes": "because"}, r"lifecycle\.accept"),
        (["kubernetes-1.20"], r"lifecycle\.accept"),
    ],
)
def test_an_accepted_line_is_one_that_is_used_and_has_a_reason(
    tmp_path: Path, accept: Any, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_cluster(write(tmp_path, "1.20.2", lifecycle={"accept": accept}))


def test_a_line_can_be_accepted_before_it_ends(tmp_path: Path) -> None:
    path = write(
        tmp_path, "1.36.2", lifecycle={"accept": {"kubernetes-1.36": "no window before 2028"}}
    )
    assert "kubernetes-1.36" not in warn(path, date(2027, 7, 1))


def test_the_minor_of_the_builders_newest_default_is_maintained() -> None:
    newest = find_lifecycle("kubernetes", f"{MINORS[-1]}.0")
    assert newest
    assert not newest.has_ended(READ)


def test_lines_of_components_that_are_not_used_are_not_listed(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path, "1.36.2")).cluster
    assert [one.row.component for one in list_lines_in_use(cluster)] == [
        "kubernetes", "etcd", "containerd", "runc",
    ]  # fmt: skip
