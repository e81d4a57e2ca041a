"""`bundler diff`: what it reports, which secrets it never shows, and its exit codes."""

import gzip
import subprocess
from pathlib import Path

import pytest
from support.bundles import Files, write_bundle
from support.command import run_bundler
from support.json_shapes import read_shape

from bundler.bundle.inventory import Item, ItemKind
from bundler.bundle.sbom import SBOM
from bundler.errors import OutputError
from bundler.upgrade.change import BundleChange, ChangeKind
from bundler.upgrade.diff import Pair, compare_pair, pair_bundles
from bundler.upgrade.text import (
    ONLY_LINE_ENDS,
    ONLY_MASKED,
    TEXT_LIMIT,
    diff_texts,
    mask,
)

KEY = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n"
LAYERS = tuple(Item(kind=ItemKind.LAYER, name=n, digest=f"sha256:{n * 64}") for n in "abc")


def make_artifact(version: str, digest: str, *programs: tuple[str, str]) -> Item:
    return Item(
        kind=ItemKind.ARTIFACT, name="etcd", version=version, arch="amd64",
        digest=f"sha256:{digest * 64}",
        parts=tuple(
            Item(
                kind=ItemKind.PROGRAM, name=name, version=version, arch="amd64",
                digest=f"sha256:{program * 64}", path=f"rootfs/opt/k8s/bin/{name}",
            )
            for name, program in programs
        ),
    )  # fmt: skip


def make_image(version: str, digest: str, layers: tuple[Item, ...] = LAYERS) -> Item:
    return Item(
        kind=ItemKind.IMAGE, name="registry.k8s.io/pause", version=version, arch="amd64",
        digest=f"sha256:{digest * 64}", path="images/00.tar", parts=layers,
    )  # fmt: skip


def compare(before: Path, after: Path, *, text: bool = False) -> tuple[BundleChange, ...]:
    return compare_pair(Pair(name="lab-one", before=before, after=after), text=text)


def compare_files(
    tmp_path: Path, before: Files, after: Files, *, text: bool = False
) -> tuple[BundleChange, ...]:
    """The changes of two bundles' files."""
    return compare(
        write_bundle(tmp_path / "a.tar.gz", before),
        write_bundle(tmp_path / "b.tar.gz", after),
        text=text,
    )


def compare_items(
    tmp_path: Path, before: tuple[Item, ...], after: tuple[Item, ...]
) -> list[tuple[str, str, str, str, str]]:
    """The changes of two bundles' components, in words."""
    changes = compare(
        write_bundle(tmp_path / "a.tar.gz", {}, before),
        write_bundle(tmp_path / "b.tar.gz", {}, after),
    )
    return [(c.section, c.what, c.name, c.before, c.after) for c in changes if c.section != "files"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_bundler(["diff", *map(str, arguments)], capture_output=True, text=True, check=False)


# --- files


def test_the_same_bytes_are_no_change(tmp_path: Path) -> None:
    assert compare_files(tmp_path, {"a": (0o644, b"1")}, {"a": (0o644, b"1")}) == ()


def test_files_are_added_removed_and_changed(tmp_path: Path) -> None:
    changes = compare_files(
        tmp_path,
        {
            "gone": (0o644, b"12"),
            "mode": (0o644, b"x"),
            "size": (0o644, b"1"),
            "text": (0o644, b"1"),
        },
        {
            "come": (0o755, b"123"),
            "mode": (0o755, b"x"),
            "size": (0o644, b"12"),
            "text": (0o644, b"2"),
        },
    )
    assert [(c.section, c.what, c.name, c.before, c.after) for c in changes] == [
        ("files", ChangeKind.ADDED, "come", "", "0755, 3 bytes"),
        ("files", ChangeKind.REMOVED, "gone", "0644, 2 bytes", ""),
        ("files", ChangeKind.CHANGED, "mode", "0644, 1 bytes", "0755, 1 bytes"),
        ("files", ChangeKind.CHANGED, "size", "0644, 1 bytes", "0644, 2 bytes"),
        ("files", ChangeKind.CHANGED, "text", "0644, 1 bytes", "other content"),
    ]


@pytest.mark.parametrize("modes", [(0o600, 0o600), (0o600, 0o644), (0o644, 0o600)])
def test_a_changed_secret_file_is_reported_without_content(
    tmp_path: Path, modes: tuple[int, int]
) -> None:
    changes = compare_files(
        tmp_path,
        {"s": (modes[0], b"old-secret")},
        {"s": (modes[1], b"new-secret-longer")},
        text=True,
    )
    assert [c.text for c in changes] == [()]
    assert "secret" not in repr(changes).replace("0600, secret", "")
    assert f"{modes[0]:04o}" in changes[0].before


def test_added_and_removed_secret_files_are_reported_without_their_size(tmp_path: Path) -> None:
    changes = compare_files(tmp_path, {"s": (0o600, b"1")}, {"t": (0o600, b"1")})
    assert [(c.name, c.before, c.after) for c in changes] == [
        ("s", "0600, secret", ""), ("t", "", "0600, secret"),
    ]  # fmt: skip


def test_text_is_shown_only_on_request(tmp_path: Path) -> None:
    before, after = {"f": (0o644, b"a\nb\n")}, {"f": (0o644, b"a\nc\n")}
    assert compare_files(tmp_path, before, after)[0].text == ()
    changes = compare_files(tmp_path, before, after, text=True)
    assert changes[0].text == ("@@ -1,2 +1,2 @@", " a", "-b", "+c")


@pytest.mark.parametrize(
    "content", [b"\0binary", b"\xff\xfe", b"x" * (TEXT_LIMIT + 1)], ids=["nul", "bytes", "long"]
)
def test_binary_and_long_files_are_not_shown(tmp_path: Path, content: bytes) -> None:
    changes = compare_files(
        tmp_path, {"f": (0o644, content)}, {"f": (0o644, content + b"y")}, text=True
    )
    assert [(c.name, c.text) for c in changes] == [("f", ())]


# --- masks


@pytest.mark.parametrize(
    "line",
    [
        "    client-key-data: SEKRIT",
        "    token: SEKRIT",
        "  - token: 'SEKRIT'",
        '{"token": "SEKRIT"}',
        '"auth": "SEKRIT",',
        "token-secret: SEKRIT",
        "  token: |-\n    SEKRIT\n    SEKRIT",
        "tls.key: SEKRIT",
        "password = SEKRIT",
        "ExecStart=/bin/x --token=SEKRIT --other",
        "export PASSWORD=SEKRIT",
        "https://robot:SEKRIT@registry.example/v2",
        "client_secret: SEKRIT",
        "--oidc-client-secret=SEKRIT",
        "    auth_pass SEKRIT",
        "Authorization: Basic SEKRIT",
        "join abcdef.0123456789abcdef",
        "header eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln",
        KEY.format("SEKRIT"),
        KEY.format("SEKRIT").replace("PRIVATE", "EC PRIVATE"),
        "-----BEGIN PRIVATE KEY-----\nSEKRIT and no end",
    ],
)
def test_secrets_are_masked_wherever_they_are(line: str) -> None:
    masked = mask(f"before\n{line}\n")
    assert "masked]" in masked
    assert not [s for s in ("SEKRIT", "0123456789abcdef", "eyJpc3MiOiJrIn0") if s in masked]
    assert masked.startswith("before\n")


@pytest.mark.parametrize(
    "line",
    [
        "tokenTTL: 1h", "--service-account-key-file=/etc/kubernetes/pki/sa.pub",
        "authentication:", "token:", "image: registry.k8s.io/pause:3.2", "auth:\n  x: 1",
        "https://registry.example:5000/v2", "secretName: x",
    ],
)  # fmt: skip
def test_text_without_secrets_is_not_masked(line: str) -> None:
    assert mask(line) == line


def test_a_change_of_secrets_alone_is_reported_without_them() -> None:
    assert diff_texts(KEY.format("1").encode(), KEY.format("2").encode()) == (ONLY_MASKED,)


def test_other_line_endings_are_reported() -> None:
    assert diff_texts(b"a\nb\n", b"a\r\nb\n") == (ONLY_LINE_ENDS,)
    assert diff_texts(b"a\n", b"a") == (ONLY_LINE_ENDS,)


def test_certificates_are_shown_by_their_digests() -> None:
    one, two = (
        f"-----BEGIN CERTIFICATE-----\n{n}\n-----END CERTIFICATE-----\n".encode() for n in (1, 2)
    )
    lines = diff_texts(one, two)
    assert lines[1].startswith("-[certificate sha256:")
    assert lines[2].startswith("+[certificate sha256:")


# --- facts, components, images


def test_facts_are_reported(tmp_path: Path) -> None:
    newer = "NODE='one'\nKUBERNETES_VERSION='1.20.15'\nARCH='arm64'\n"
    changes = compare(
        write_bundle(tmp_path / "a.tar.gz", {}), write_bundle(tmp_path / "b.tar.gz", {}, env=newer)
    )
    assert [(c.name, c.before, c.after) for c in changes if c.section == "facts"] == [
        ("kubernetes version", "1.20.2", "1.20.15"), ("arch", "none", "arm64"),
    ]  # fmt: skip


def test_a_new_version_is_one_change_with_its_programs(tmp_path: Path) -> None:
    before = make_artifact("3.4.13", "a", ("etcd", "1"), ("etcdctl", "2"))
    after = make_artifact("3.4.23", "b", ("etcd", "3"), ("etcdctl", "4"))
    assert compare_items(tmp_path, (before,), (after,)) == [
        ("components", "changed", "etcd (amd64)", "3.4.13", "3.4.23")
    ]


def test_other_bytes_of_the_same_version_are_reported_by_digest(tmp_path: Path) -> None:
    assert compare_items(tmp_path, (make_artifact("3.4.13", "a"),), (make_artifact("3.4.13", "b"),)) == [
        ("components", "changed", "etcd (amd64)", "3.4.13 sha256:aaaaaaaaaaaa…",
         "3.4.13 sha256:bbbbbbbbbbbb…"),
    ]  # fmt: skip


def test_a_program_that_differs_from_its_artifact_is_reported(tmp_path: Path) -> None:
    before = make_artifact("3.4.13", "a", ("etcd", "1"))
    after = make_artifact("3.4.13", "a", ("etcd", "2"), ("etcdctl", "3"))
    assert compare_items(tmp_path, (before,), (after,)) == [
        ("components", "changed", "etcd (amd64)", "3.4.13 sha256:111111111111…",
         "3.4.13 sha256:222222222222…"),
        ("components", "added", "etcdctl (amd64)", "", "3.4.13"),
    ]  # fmt: skip


def test_images_are_reported_with_the_layers_that_stay(tmp_path: Path) -> None:
    more = (*LAYERS[:2], Item(kind=ItemKind.LAYER, name="d", digest=f"sha256:{'d' * 64}"))
    assert compare_items(tmp_path, (make_image("3.2", "a"),), (make_image("3.3", "b", more),)) == [
        (
            "images",
            "changed",
            "registry.k8s.io/pause (amd64)",
            "3.2",
            "3.3 (2 of 3 layers as before)",
        )
    ]
    assert compare_items(tmp_path, (), (make_image("3.2", "a"),)) == [
        ("images", "added", "registry.k8s.io/pause (amd64)", "", "3.2")
    ]


def test_two_tags_of_one_image_are_added_or_removed_each(tmp_path: Path) -> None:
    one, two, three = make_image("1", "a"), make_image("2", "b"), make_image("3", "c")
    assert compare_items(tmp_path, (one, two), (two, three)) == [
        ("images", "removed", "registry.k8s.io/pause (amd64)", "1", ""),
        ("images", "added", "registry.k8s.io/pause (amd64)", "", "3"),
    ]


def test_bundles_without_an_sbom_are_compared_by_their_files(tmp_path: Path) -> None:
    changes = compare(
        write_bundle(tmp_path / "a.tar.gz", {}, None), write_bundle(tmp_path / "b.tar.gz", {})
    )
    assert [(c.section, c.what, c.name) for c in changes] == [("files", ChangeKind.ADDED, SBOM)]


@pytest.mark.parametrize("sbom", [b"no JSON", b"[]", b'{"components": [{}]}', b'{"components": 7}'])
def test_a_file_that_is_not_an_sbom_is_a_fault(tmp_path: Path, sbom: bytes) -> None:
    bad = write_bundle(tmp_path / "a.tar.gz", {SBOM: (0o644, sbom)}, None)
    with pytest.raises(OutputError, match="bundler did not write this SBOM"):
        compare(bad, write_bundle(tmp_path / "b.tar.gz", {}))


# --- signatures and tarballs


def test_signatures_are_reported_if_the_manifests_are_the_same(tmp_path: Path) -> None:
    plain, ours, theirs = (
        write_bundle(tmp_path / f"{name.decode() or 'plain'}.tar.gz", {}, signature=name)
        for name in (b"", b"ours", b"theirs")
    )
    words = [
        [(c.section, c.before, c.after) for c in compare(*pair)]
        for pair in ((plain, ours), (ours, plain), (ours, theirs))
    ]
    assert words == [
        [("signature", "not signed", "signed")],
        [("signature", "signed", "not signed")],
        [("signature", "signed", "signed with another key")],
    ]


def test_other_bytes_with_the_same_files_are_reported(tmp_path: Path) -> None:
    changes = compare(
        write_bundle(tmp_path / "a.tar.gz", {}), write_bundle(tmp_path / "b.tar.gz", {}, mtime=9)
    )
    assert [c.section for c in changes] == ["tarball"]
    assert "every file is the same" in changes[0].after


# --- pairs


def test_directories_are_compared_by_the_names_of_bundles(tmp_path: Path) -> None:
    for name in ("a/x.tar.gz", "a/y.tar.gz", "b/y.tar.gz", "b/z.tar.gz"):
        write_bundle(tmp_path / name, {})
    a, b = tmp_path / "a", tmp_path / "b"
    assert [
        [(c.what, c.section, c.name) for c in compare_pair(pair)] for pair in pair_bundles(a, b)
    ] == [
        [(ChangeKind.REMOVED, "bundles", "x.tar.gz")], [], [(ChangeKind.ADDED, "bundles", "z.tar.gz")],
    ]  # fmt: skip
    for pair in (*pair_bundles(a / "y.tar.gz", b), *pair_bundles(a, b / "y.tar.gz")):
        assert (pair.before, pair.after) == (a / "y.tar.gz", b / "y.tar.gz")


# --- the command


def test_exit_codes_are_those_of_diff(tmp_path: Path) -> None:
    one = write_bundle(tmp_path / "a" / "lab-one.tar.gz", {"f": (0o644, b"1")})
    two = write_bundle(tmp_path / "b" / "lab-one.tar.gz", {"f": (0o644, b"2")})
    same, differ = run(tmp_path / "a", tmp_path / "a"), run(one, two)
    assert (same.returncode, same.stdout, same.stderr) == (0, "same  lab-one.tar.gz\n", "")
    assert (differ.returncode, differ.stderr) == (1, "")
    assert differ.stdout.splitlines() == [
        "lab-one.tar.gz", "  files", "    ~ f: 0644, 1 bytes → other content",
    ]  # fmt: skip


def test_faults_have_exit_code_2_and_a_hint(tmp_path: Path) -> None:
    good = write_bundle(tmp_path / "good.tar.gz", {"f": (0o644, b"1" * 4096)})
    (tmp_path / "cut.tar.gz").write_bytes(good.read_bytes()[:-60])
    (tmp_path / "text.tar.gz").write_text("no archive")
    plain = gzip.decompress(good.read_bytes()).replace(b"1" * 4096, b"1" * 4095 + b"2")
    (tmp_path / "altered.tar.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "empty").mkdir()
    for name, words in {
        "cut.tar.gz": "damaged or incomplete",
        "text.tar.gz": "not a gzip file",
        "altered.tar.gz": "f: differs from the manifest",
        "missing.tar.gz": "No such file",
        "empty": "No such file",
    }.items():
        done = run(good, tmp_path / name)
        assert (done.returncode, done.stdout) == (2, ""), name
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert "bundler inspect" in run(good, tmp_path / "altered.tar.gz").stderr
    assert "no bundle (*.tar.gz) in this directory" in run(tmp_path / "empty", tmp_path).stderr
    assert run(good).returncode == 2


def test_json_has_the_same_changes(tmp_path: Path) -> None:
    one = write_bundle(tmp_path / "a" / "lab-one.tar.gz", {"f": (0o644, b"1\n")})
    two = write_bundle(tmp_path / "b" / "lab-one.tar.gz", {"f": (0o644, b"2\n")})
    done = run(one, two, "--json", "--text")
    assert done.returncode == 1
    (pair,) = read_shape(done.stdout, "diff")["bundles"]
    assert (pair["name"], pair["same"]) == ("lab-one.tar.gz", False)
    assert pair["changes"] == [
        {
            "section": "files", "what": "changed", "name": "f", "before": "0644, 2 bytes",
            "after": "other content", "text": ["@@ -1 +1 @@", "-1", "+2"],
        }
    ]  # fmt: skip
    assert read_shape(run(one, one, "--json").stdout, "diff")["bundles"][0]["same"] is True


def test_a_bundle_cannot_send_commands_to_the_terminal(tmp_path: Path) -> None:
    one = write_bundle(tmp_path / "a.tar.gz", {"f": (0o644, b"1\n")})
    two = write_bundle(tmp_path / "b.tar.gz", {"f": (0o644, b"\x1b]0;owned\x07\r2\n")})
    done = run(one, two, "--text")
    assert done.returncode == 1
    assert not {"\x1b", "\x07", "\r"} & set(done.stdout)
    assert "\\x1b]0;owned\\x07" in done.stdout
    named = write_bundle(tmp_path / "c.tar.gz", {"g\x1b[2J": (0o644, b"")})
    done = run(one, named)
    assert (done.returncode, "\x1b" in done.stderr) == (2, False)
    assert "'lab-one/g\\x1b[2J' is a name with control characters" in done.stderr
