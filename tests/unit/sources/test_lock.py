"""bundler lock: every file is pinned with a trust source, and builds use no other file."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.descriptions import write_description, write_upstream
from support.misbehaving_server import PATH, make_artifact, running
from typer.testing import CliRunner

from bundler.cache.archive import export_blobs, import_blobs
from bundler.cache.store import Cache
from bundler.catalog import URLS, artifact_url
from bundler.downloads import update_lock
from bundler.errors import ArtifactError, ConfigError
from bundler.project import Inputs, check
from bundler.sources.fetch import FetchOptions
from bundler.sources.lock import (
    Lock,
    LockKind,
    TrustSource,
    lock_path,
    read_lock,
)
from bundler.sources.lock_update import lock_artifact, read_checksum

SHA256, SHA512 = "ab" * 32, "cd" * 64


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """The lab cluster, with small stand-ins for upstream files in a mirror, pinned in cluster.yaml."""
    description = write_description(tmp_path)
    return Inputs(
        description=description,
        cache=Cache(tmp_path / "cache"),
        mirrors=(str(tmp_path / "mirror"),),
        offline=True,
        pins=write_upstream(tmp_path, description),
    )


def rewrite_pins(inputs: Inputs, **changes: object) -> None:
    """Change values in the pin of etcd; None removes one."""
    assert inputs.pins is not None
    data = json.loads(inputs.pins.read_text())
    pin = data["artifacts"]["etcd/amd64"] | changes
    data["artifacts"]["etcd/amd64"] = {k: v for k, v in pin.items() if v is not None}
    inputs.pins.write_text(json.dumps(data))


def find_etcd(inputs: Inputs) -> dict[str, str]:
    entry = read_lock(lock_path(inputs.description)).find(LockKind.ARTIFACT, "etcd", "amd64")
    assert entry is not None
    return entry.model_dump(mode="json")


def describe(inputs: Inputs, *update: str) -> dict[str, str]:
    return {change.entry.name: change.what for change in update_lock(inputs, update)}


def test_a_lock_has_the_files_of_the_mirror_and_their_trust_source(inputs: Inputs) -> None:
    assert set(describe(inputs).values()) == {"added"}
    entry = find_etcd(inputs)
    file = Path(inputs.mirrors[0]) / entry["url"].removeprefix("https://")
    assert entry["digest"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert entry["size"] == file.stat().st_size
    assert entry["origin"] == "user"
    assert inputs.cache.has_blob("sha256", entry["digest"][7:])


def test_locking_again_changes_no_byte(inputs: Inputs) -> None:
    update_lock(inputs, ())
    before = lock_path(inputs.description).read_bytes()
    assert set(describe(inputs).values()) == {"kept"}
    assert set(describe(inputs, "all").values()) == {"kept"}
    assert lock_path(inputs.description).read_bytes() == before


def test_a_dry_run_writes_no_lock(inputs: Inputs) -> None:
    assert update_lock(inputs, (), dry_run=True)
    assert not lock_path(inputs.description).exists()


@pytest.mark.usefixtures("no_line_has_ended")
def test_a_digest_without_a_trust_source_is_first_use_and_strict_refuses_it(inputs: Inputs) -> None:
    rewrite_pins(inputs, sha256=None)
    with pytest.raises(ArtifactError, match="has no built-in pin"):
        check(inputs)
    update_lock(inputs, ())
    assert find_etcd(inputs)["origin"] == "first-use"
    check(inputs)
    strict = Inputs(**{name: getattr(inputs, name) for name in Inputs.__slots__} | {"strict": True})
    with pytest.raises(ArtifactError, match=r"etcd .*only seen on first use"):
        check(strict)
    with pytest.raises(ArtifactError, match=r"etcd .*only seen on first use"):
        update_lock(strict, ())


@pytest.mark.usefixtures("no_line_has_ended")
def test_strict_needs_a_lock(inputs: Inputs) -> None:
    strict = Inputs(**{name: getattr(inputs, name) for name in Inputs.__slots__} | {"strict": True})
    with pytest.raises(ConfigError, match="--strict needs a lock"):
        check(strict)


@pytest.mark.parametrize(
    ("published", "origin"),
    [
        ("{digest}  {name}\n", "upstream-checksum"),
        (f"{SHA256}  another.tar.gz\n{{digest}} *{{name}}\n", "upstream-checksum"),
        ("{digest}\n", "upstream-checksum"),
        ("<html>404</html>", "first-use"),
        (None, "first-use"),
    ],
)
def test_a_digest_that_upstream_publishes_is_used(
    inputs: Inputs, published: str | None, origin: str
) -> None:
    assert inputs.pins is not None
    data = json.loads(inputs.pins.read_text())
    url = artifact_url("etcd", "3.4.99", "amd64")
    old = data["artifacts"].pop("etcd/amd64")["url"]
    inputs.pins.write_text(json.dumps(data))
    text = yaml.safe_load(inputs.description.read_text())
    inputs.description.write_text(yaml.safe_dump(text | {"etcd": {"version": "3.4.99"}}))
    mirror = Path(inputs.mirrors[0])
    target = mirror / url.removeprefix("https://")
    target.parent.mkdir(parents=True)
    (mirror / old.removeprefix("https://")).rename(target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if published is not None:
        (target.parent / "SHA256SUMS").write_text(published.format(digest=digest, name=target.name))
    update_lock(inputs, ())
    assert find_etcd(inputs)["origin"] == origin
    assert find_etcd(inputs)["digest"] == f"sha256:{digest}"


@pytest.mark.parametrize("status", [403, 503])
def test_a_failing_digest_url_does_not_cause_a_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with running() as server:
        monkeypatch.setitem(URLS, "etcd", f"{server.url}/v{{version}}{PATH}")
        artifact = replace(make_artifact(artifact_url("etcd", "3.4.99", "amd64")), digest="")
        artifact = replace(artifact, version="3.4.99")
        options = FetchOptions(cache=Cache(tmp_path / "cache"), backoff=0.01)
        server.statuses = [status] * (4 if status == 503 else 1)
        with pytest.raises(
            ArtifactError, match=f"the digest of etcd .*\n.*HTTP {status}"
        ) as caught:
            lock_artifact(artifact, options, datetime.now(UTC))
        assert "pin the file's digest under `artifacts`" in (caught.value.hint or "")
        assert lock_artifact(artifact, options, datetime.now(UTC)).origin is TrustSource.FIRST_USE


def test_a_digest_list_is_used_from_the_cache_but_not_from_an_imported_one(
    inputs: Inputs, tmp_path: Path
) -> None:
    test_a_digest_that_upstream_publishes_is_used(inputs, "{digest}\n", "upstream-checksum")
    carried = Cache(tmp_path / "carried")
    export_blobs(inputs.cache, tmp_path / "x.tar", None)
    list(import_blobs(carried, tmp_path / "x.tar"))
    lock_path(inputs.description).unlink()
    with pytest.raises(ArtifactError, match="etcd"):
        update_lock(replace(inputs, mirrors=(), cache=carried), ())
    update_lock(replace(inputs, mirrors=()), ())
    assert find_etcd(inputs)["origin"] == "upstream-checksum"


def test_a_file_that_differs_from_the_published_digest_is_refused(inputs: Inputs) -> None:
    test_a_digest_that_upstream_publishes_is_used(inputs, "{digest}\n", "upstream-checksum")
    url = find_etcd(inputs)["url"].removeprefix("https://")
    (Path(inputs.mirrors[0]) / url).parent.joinpath("SHA256SUMS").write_text(SHA256)
    with pytest.raises(ArtifactError, match="does not match its pin"):
        update_lock(inputs, ("etcd",))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": "https://upstream.example/other"}, "is locked from .*other"),
        ({"sha256": SHA256}, f"is locked as .*its pin is now sha256:{SHA256}"),
        ({"sha256": None, "sha512": SHA512}, "its pin is now sha512"),
    ],
)
def test_build_and_lock_refuse_drift_until_update_names_it(
    inputs: Inputs, changes: dict[str, object], expected: str
) -> None:
    update_lock(inputs, ())
    rewrite_pins(inputs, **changes)
    for attempt in (lambda: check(inputs), lambda: update_lock(inputs, ("docker",))):
        with pytest.raises(ArtifactError, match=f"etcd .*{expected}") as caught:
            attempt()
        assert caught.value.hint is not None
        assert "bundler lock --update etcd" in caught.value.hint


def test_another_version_is_drift_until_update_names_it(inputs: Inputs) -> None:
    update_lock(inputs, ())
    old = find_etcd(inputs)
    path = lock_path(inputs.description)
    path.write_text(path.read_text().replace(f"version: {old['version']}", "version: 3.4.1"))
    with pytest.raises(ArtifactError, match=r"etcd \(amd64\) is locked as 3\.4\.1"):
        check(inputs)
    changes = describe(inputs, "etcd")
    assert changes["etcd"] == "renewed"
    assert {what for name, what in changes.items() if name != "etcd"} == {"kept"}
    assert find_etcd(inputs)["version"] == old["version"]


def test_what_the_cluster_no_longer_needs_is_dropped(inputs: Inputs) -> None:
    update_lock(inputs, ())
    path = lock_path(inputs.description)
    data = yaml.safe_load(path.read_text())
    data["entries"].append(data["entries"][0] | {"name": "flanneld"})
    path.write_text(yaml.safe_dump(data))
    check(inputs)
    assert describe(inputs)["flanneld"] == "dropped"
    assert read_lock(path).find(LockKind.ARTIFACT, "flanneld", "amd64") is None


def test_build_refuses_a_missing_entry(inputs: Inputs) -> None:
    update_lock(inputs, ())
    path = lock_path(inputs.description)
    data = yaml.safe_load(path.read_text())
    data["entries"] = [e for e in data["entries"] if e["name"] != "etcd"]
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(
        ArtifactError, match=r"cluster\.lock\.yaml: etcd \(amd64\) is missing in the lock"
    ):
        check(inputs)
    assert describe(inputs)["etcd"] == "added"


def test_an_unknown_name_is_refused(inputs: Inputs) -> None:
    with pytest.raises(ArtifactError, match="--update ectd") as caught:
        update_lock(inputs, ("ectd",))
    assert "etcd" in str(caught.value.hint)


BOMB = "".join(
    f"a{n}: &a{n} [{', '.join(['x' if n == 0 else f'*a{n - 1}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lock: [", "not valid YAML"),
        ("\xff", "lock: Input should be"),
        ("lock: 2\ncluster: x\nentries: []\n", "lock: Input should be 1"),
        ("lock: 1\ncluster: x\nentries: [{kind: thing}]\n", "entries.0.kind"),
        ("lock: 1\ncluster: x\nentries: []\nmore: 1\n", "more: Extra inputs"),
        (
            "lock: 1\ncluster: x\nentries: [{locked: 2024-99-99}]\n",
            r"yaml:3:\d+: entries\[0\].locked: .*reads a date",
        ),
        (
            f"lock: 1\ncluster: x\nentries: [{{size: {'9' * 5000}}}]\n",
            r"entries\[0\].size: .*not a number of 64 bits",
        ),
        ("[" * 1000, "yaml:1:41: nested deeper than 40 levels"),
        (f"lock: 1\n{BOMB}", "yaml:7:.*: more than 100000 values"),
        ("# " + "x" * (5 << 20), "larger than 4 MiB"),
        (
            "lock: 1\ncluster: x\nentries: [{url: 'https://[bad'}]\n",
            "entries.0.url: .*must be a valid URL",
        ),
    ],
)
def test_a_damaged_lock_is_refused(inputs: Inputs, text: str, expected: str) -> None:
    lock_path(inputs.description).write_text(text)
    with pytest.raises(ConfigError, match=expected if text != "\xff" else "valid dictionary"):
        check(inputs)


def test_two_entries_for_one_file_are_refused(inputs: Inputs) -> None:
    update_lock(inputs, ())
    path = lock_path(inputs.description)
    data = yaml.safe_load(path.read_text())
    data["entries"].append(data["entries"][0])
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="more than one entry for artifact"):
        check(inputs)


def test_the_command_prints_one_line_for_each_entry(inputs: Inputs) -> None:
    from bundler.cli.app import app

    arguments = ["lock", "-q", "-c", str(inputs.description), "--offline", "--pins"]
    arguments += [
        str(inputs.pins),
        "--mirror",
        inputs.mirrors[0],
        "--cache",
        str(inputs.cache.root),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    lock: Lock = read_lock(lock_path(inputs.description))
    assert sorted(line[1:] for line in lines) == sorted(
        [e.name, e.version, e.arch, e.origin.value, e.digest] for e in lock.entries
    )
    assert {entry.origin for entry in lock.entries} == {TrustSource.USER}


def test_a_checksum_file_with_two_digests_is_not_used() -> None:
    text = f"{SHA256}  x\n{'ef' * 32}  x\n".encode()
    assert read_checksum(text, "x", "sha256") is None
    assert read_checksum(f"{SHA256}  x\n".encode(), "x", "sha512") is None
    assert read_checksum(b"", "x", "sha256") is None
