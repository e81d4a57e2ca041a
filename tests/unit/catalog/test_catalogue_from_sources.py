"""`make catalogue`: rows of the catalog from Kubernetes' sources, read from a small made tree."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.kubernetes_sources import FLAGS, write_sources

from bundler.errors import BundlerError
from scripts.catalogue.__main__ import list_minors, main
from scripts.catalogue.apis import read_apis
from scripts.catalogue.explained import find_reason
from scripts.catalogue.fields import read_fields
from scripts.catalogue.flags import read_flags
from scripts.catalogue.gates import read_gates
from scripts.catalogue.golang import Go, is_built
from scripts.catalogue.rows import TABLES, lock_gates, update_rows
from scripts.catalogue.source import Source, open_source

MINORS = ("1.14", "1.15", "1.16", "1.17")


@pytest.fixture
def go(tmp_path: Path) -> Go:
    return Go(open_source(write_sources(tmp_path), "", "1.38"))


def test_flags_are_followed_from_the_command_through_options_loops_and_libraries(go: Go) -> None:
    assert read_flags(go, "kube-apiserver") == FLAGS


def test_a_flag_whose_name_is_not_known_is_reported_with_its_line(go: Go) -> None:
    read_flags(go, "kube-apiserver")
    (place,) = go.unread
    assert place.startswith("cmd/kube-apiserver/app/options/options.go:")
    assert place.endswith("String(name")


def test_a_program_that_the_source_does_not_have_keeps_its_rows(go: Go) -> None:
    assert read_flags(go, "kubelet") == set()
    assert go.without == {"kubelet"}


def test_fields_have_the_types_that_the_table_writes(go: Go) -> None:
    found = read_fields(go, lambda _: "")
    assert {field: kind for (_, _, field), kind in found.items()} == {
        "apiVersion": "string",
        "kind": "string",
        "maxPods": "int32",
        "syncFrequency": "duration",
        "mode": "string",
        "evictionHard.*": "map:string",
        "webhook.enabled": "bool",
        "reserved.*": "[]{names:[]string,node:int32}",
    }


def test_a_field_is_written_as_the_table_has_it(go: Go) -> None:
    types = {"reserved": "[]object", "webhook.*": "{enabled:bool}"}
    found = read_fields(go, lambda key: types.get(key[2], ""))
    kept = {field: kind for (_, _, field), kind in found.items() if field.startswith(("r", "w"))}
    assert kept == {
        "reserved": "[]object",
        "reserved.node": "int32",
        "reserved.names": "[]string",
        "webhook.*": "{enabled:bool}",
    }


@pytest.mark.parametrize(
    ("minor", "expected"),
    [
        ("1.29", {"PlainGate": "ga, locked at true"}),
        ("1.37", {"PlainGate": "ga, locked at true", "VersionedGate": "alpha, false by default"}),
        ("1.38", {"PlainGate": "ga, locked at true", "VersionedGate": "beta, true by default"}),
        (
            "1.39",
            {
                "PlainGate": "ga, locked at true",
                "VersionedGate": "ga, locked at true",
                "LaterGate": "alpha, false by default",
            },
        ),
    ],
)
def test_gates_have_the_stage_of_the_minor(go: Go, minor: str, expected: dict[str, str]) -> None:
    assert {name: gate.describe() for name, gate in read_gates(go, minor).items()} == expected


def test_a_gate_without_a_known_name_is_reported(go: Go) -> None:
    read_gates(go, "1.38")
    assert any("elsewhere.Unknown" in place for place in go.unread)


def test_kinds_end_with_the_minor_that_their_lifecycle_names(go: Go) -> None:
    kinds = {
        minor: {kind for api, kind in read_apis(go, minor) if api == "apps/v1beta1"}
        for minor in ("1.15", "1.16", "1.40")
    }
    assert kinds == {"1.15": {"Deployment", "Fleet"}, "1.16": {"Fleet"}, "1.40": set()}


def make_archive(directory: Path, to: Path) -> Path:
    with tarfile.open(to, f"w:{to.suffix[1:]}") as tar:
        tar.add(directory, "kubernetes-1.38.0")
    return to


def make_git(directory: Path, to: Path) -> Path:
    """A bare git directory with a tag, as a mirror has it."""
    git = ["git", "-C", str(directory), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "t"],
        ["tag", "v1.38.2"],
        ["tag", "v1.38.10"],
    ):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(directory), str(to)], check=True)
    return to


@pytest.mark.parametrize("form", ["tree.tar.gz", "tree.tar.xz", "tree.git", "vendored"])
def test_every_form_of_a_source_tree_is_read_alike(tmp_path: Path, form: str) -> None:
    directory = write_sources(tmp_path / "tree")
    if form == "vendored":
        path = tmp_path / "other"
        vendored = path / "vendor" / "k8s.io" / "kubernetes"
        vendored.mkdir(parents=True)
        for name in ("cmd", "pkg"):
            (directory / name).rename(vendored / name)
        for module in (directory / "staging" / "src" / "k8s.io").iterdir():
            module.rename(path / "vendor" / "k8s.io" / module.name)
        (directory / "vendor" / "k8s.io" / "klog").rename(path / "vendor" / "k8s.io" / "klog")
    else:
        make = make_git if form.endswith(".git") else make_archive
        path = make(directory, tmp_path / form)
    go = Go(open_source(path, "", "1.38"))
    assert read_flags(go, "kube-apiserver") == FLAGS
    assert read_gates(go, "1.38").keys() == {"PlainGate", "VersionedGate"}


def test_of_a_minors_tags_the_newest_release_is_read(tmp_path: Path) -> None:
    git = make_git(write_sources(tmp_path / "tree"), tmp_path / "tree.git")
    assert open_source(git, "", "1.38").folder_of("k8s.io/kubernetes/pkg/features")
    with pytest.raises(BundlerError, match=r"has no tag v1\.39\.PATCH"):
        open_source(git, "", "1.39")
    with pytest.raises(BundlerError, match="git ls-tree failed"):
        open_source(git, "--output=x", "1.38")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"no archive"), "not a readable tar archive"),
        (lambda path: path.write_bytes(b"\x1f\x8bcut"), "not a readable tar archive"),
        (lambda path: path.mkdir(), "has no cmd/kube-apiserver/app/server.go"),
        (lambda path: None, "there is no such file or directory"),
    ],
)
def test_what_is_no_source_tree_is_an_error_with_the_fix(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make,
    reason: str,
) -> None:
    path = tmp_path / "source"
    make(path)
    monkeypatch.setattr(sys, "argv", ["catalogue", "1.38", str(path)])
    assert main() == 2
    assert reason in capsys.readouterr().err


def test_minors_are_added_in_order() -> None:
    assert list_minors("1.38")[-1] == "1.38"
    with pytest.raises(BundlerError, match="neither a supported minor nor the next one"):
        list_minors("1.40")


FLAG = {"component": "kubelet", "flag": "x"}


@pytest.mark.parametrize(
    ("spans", "is_seen", "minor", "expected"),
    [
        ([("", "")], True, "1.16", [("", "")]),
        ([("", "")], False, "1.17", [("", "1.17")]),
        ([("", "")], False, "1.14", [("1.15", "")]),
        ([("", "1.16")], True, "1.16", [("", "1.17")]),
        ([("1.16", "")], True, "1.15", [("1.15", "")]),
        ([], True, "1.17", [("1.17", "")]),
        ([], True, "1.16", [("1.16", "1.17")]),
        ([("1.15", "1.16")], False, "1.15", []),
        ([("", "1.40")], False, "1.14", [("1.15", "1.40")]),
        ([("", "")], False, "1.15", [("", "1.15"), ("1.16", "")]),
    ],
)
def test_a_span_changes_by_the_minor_that_was_read(
    spans: list[tuple[str, str]], is_seen: bool, minor: str, expected: list[tuple[str, str]]
) -> None:
    rows = [{**FLAG, "since": since, "until": until} for since, until in spans]
    seen = [("kubelet", "x")] if is_seen else []
    changed = update_rows(TABLES["flags"], rows, seen, minor, MINORS)
    assert [(row["since"], row["until"]) for row in changed] == expected


def test_another_type_of_a_field_starts_where_the_former_ends() -> None:
    key = {"component": "kubelet", "api": "", "field": "x"}
    rows = [{**key, "type": "int64", "since": "", "until": ""}]
    changed = update_rows(
        TABLES["fields"], rows, [("kubelet", "", "x", "duration")], "1.17", MINORS
    )
    assert [(row["type"], row["since"], row["until"]) for row in changed] == [
        ("int64", "", "1.17"),
        ("duration", "1.17", ""),
    ]


@pytest.mark.parametrize(
    ("locked", "value", "seen", "minor", "expected"),
    [
        ("", "", {"X": "true"}, "1.16", ("1.16", "true")),
        ("1.17", "true", {"X": "true"}, "1.16", ("1.16", "true")),
        ("1.15", "true", {"X": "true"}, "1.16", ("1.15", "true")),
        ("1.15", "true", {"X": "false"}, "1.16", ("1.16", "false")),
        ("1.15", "true", {}, "1.16", ("1.17", "true")),
        ("1.15", "true", {}, "1.17", ("", "")),
    ],
)
def test_a_gate_is_locked_from_the_first_minor_that_locks_it(
    locked: str, value: str, seen: dict[str, str], minor: str, expected: tuple[str, str]
) -> None:
    row = {"gate": "X", "since": "", "until": "", "locked": locked, "value": value}
    (changed,) = lock_gates([row], seen, minor, MINORS)
    assert (changed["locked"], changed["value"]) == expected


@pytest.mark.parametrize(
    ("head", "is_compiled"),
    [
        ("//go:build linux && !windows", True),
        ("//go:build !linux", False),
        ("//go:build (darwin || linux) && !(arm64 && linux)", True),
        ("//go:build !(linux || windows)", False),
        ("// +build !providerless", True),
        ("// +build linux,arm64 windows", False),
        ("// +build linux\n// +build !cgo", False),
        ("// a comment", True),
    ],
)
def test_build_tags_are_those_of_linux_on_amd64(head: str, is_compiled: bool) -> None:
    assert is_built(f"{head}\n\npackage x\n".encode()) is is_compiled


def test_an_explained_difference_holds_for_its_minors_only() -> None:
    kind = ("apps/v1beta1", "Deployment")
    assert find_reason("apis.tsv", kind, "1.17")
    assert not find_reason("apis.tsv", kind, "1.19")
    assert not find_reason("apis.tsv", ("apps/v1", "Deployment"), "1.17")


def test_a_source_without_kubernetes_is_refused() -> None:
    with pytest.raises(BundlerError, match=r"has no cmd/kube-apiserver/app/server\.go"):
        Source({"pkg/x.go": b"package x"})
