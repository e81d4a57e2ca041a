"""`build --seal`: bundles that hold their node's secrets for its host alone."""

import gzip
import hashlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.media import PUBLIC, faults_of, files_of, run
from support.sealed_bundles import list_needles, search
from support.small_builds import SmallSite, make_site, read_manifest, unpack

from bundler.bundle.layout import Layout, Media
from bundler.bundle.seal import ENVELOPE, SEALED, SealKey, seal_tree
from bundler.bundle.signing import generate_key
from bundler.bundle.unseal_code import ALPHABET, format_code, make_code, parse_code
from bundler.bundle.verify import compare, verify
from bundler.errors import ConfigError, PkiError
from bundler.formats.volumes import open_joined
from bundler.render.tree import File, Tree, make_manifest

SEAL = Media(seal=True)
NODES = ("one", "two", "three")


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    """Builds: plain, dist (sealed), to (one node sealed to a certificate), public."""
    site = make_site(tmp_path_factory.mktemp("sealed"))
    site.build("plain")
    site.build("dist", SEAL)
    make_certificate(site.directory, "one")
    site.build("to", Media(seal_to=(f"one={site.directory}/one.crt",)))
    site.build("public", PUBLIC)
    return site


@pytest.fixture
def site(sealed: SmallSite, tmp_path: Path) -> SmallSite:
    """A copy that a test may change."""
    shutil.copytree(sealed.directory, tmp_path / "site")
    return SmallSite(tmp_path / "site")


def make_certificate(directory: Path, name: str, *arguments: str) -> Path:
    """A key and a certificate, as an administrator makes them on the host."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *arguments,
         "-subj", f"/CN={name}", "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return directory / f"{name}.crt"


def tarball(dist: Path, node: str) -> Path:
    return dist / f"small-{node}.tar.gz"


def read_codes(dist: Path) -> dict[str, list[str]]:
    lines = [line.split("\t") for line in (dist / "UNSEAL.tsv").read_text().splitlines()]
    return {node: rest for node, *rest in lines if not node.startswith("#")}


@pytest.mark.parametrize("node", NODES)
@pytest.mark.slow
def test_no_secret_of_the_state_is_in_a_sealed_tarball(sealed: SmallSite, node: str) -> None:
    needles = list_needles(sealed.directory / "small.state")
    for dist in ("dist", "to"):
        assert search(tarball(sealed.directory / dist, node).read_bytes(), needles) == set()
    # the same search finds what the bundle holds without a seal
    found = search(tarball(sealed.directory / "plain", node).read_bytes(), needles)
    assert {f"tokens/{node}", f"pki/nodes/{node}/kube-proxy/key.pem"} <= found
    assert ("encryption-key" in found) is (node == "one")


@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: content + b"x"])
def test_the_search_for_secrets_ends_at_a_tarball_that_it_cannot_read(
    sealed: SmallSite, change: Callable[[bytes], bytes]
) -> None:
    content = tarball(sealed.directory / "plain", "one").read_bytes()
    with pytest.raises((EOFError, gzip.BadGzipFile)):
        search(change(content), {})


@pytest.mark.parametrize("node", NODES)
@pytest.mark.slow
def test_no_digest_of_a_secret_file_is_in_the_clear(sealed: SmallSite, node: str) -> None:
    """A digest of a short password would tell the password to who guesses it."""
    manifest = read_manifest(tarball(sealed.directory / "plain", node))
    digests = {line.split()[0].encode() for line in manifest if line.split()[1] == "0600"}
    plain = unpack(tarball(sealed.directory / "plain", node), sealed.directory / f"u-{node}")
    digests.add(hashlib.sha256((plain / "MANIFEST").read_bytes()).hexdigest().encode())
    raw = {bytes.fromhex(digest.decode()) for digest in digests}
    needles = {"a digest": digests | raw}
    assert search(tarball(sealed.directory / "dist", node).read_bytes(), needles) == set()
    assert search(tarball(sealed.directory / "plain", node).read_bytes(), needles)


def test_the_size_of_a_sealed_tarball_does_not_tell_the_size_of_a_secret() -> None:
    sizes = set()
    for size in (1, 8, 40, 20_000):
        secret = File(path="rootfs/password", mode=0o600, content=b"x" * size, origin="a test")
        tree = Tree([secret])
        tree.add(make_manifest(tree))
        sealed, _ = seal_tree(tree, SealKey(code=make_code()), 0, b"")
        sizes.add(sealed[SEALED].size)
    assert len(sizes) == 1


def test_every_secret_file_is_sealed_and_every_other_file_is_the_same(sealed: SmallSite) -> None:
    for node in NODES:
        plain = read_manifest(tarball(sealed.directory / "plain", node))
        manifest = read_manifest(tarball(sealed.directory / "dist", node))
        secret = {line.split()[3] for line in plain if line.split()[1] == "0600"}
        assert secret
        named = {line.split()[2] for line in manifest if line.startswith("# from-seal ")}
        assert named == secret
        public = [line for line in plain if line.split()[1] != "0600"]
        assert [line for line in files_of(manifest) if line.split()[3] != SEALED] == public
        directory = unpack(tarball(sealed.directory / "dist", node), sealed.directory / f"s-{node}")
        assert not [path for path in secret if (directory / path).exists()]


@pytest.mark.slow
def test_a_second_sealed_build_has_the_same_bytes(site: SmallSite) -> None:
    generate_key(site.directory / "release.key")
    for media in (SEAL, Media(seal_to=(f"one={site.directory}/one.crt",))):
        one = site.build("a", media, sign=site.directory / "release.key")
        two = site.build("b", media, sign=site.directory / "release.key")
        for name in ("SHA256SUMS", "SHA256SUMS.sig", "UNSEAL.tsv", "small-one.tar.gz"):
            assert (one / name).read_bytes() == (two / name).read_bytes()
    assert (site.build("c", SEAL) / "SHA256SUMS").read_bytes() == (
        site.directory / "dist/SHA256SUMS"
    ).read_bytes()


@pytest.mark.slow
def test_another_secret_is_encrypted_with_another_key(site: SmallSite) -> None:
    """With one key and counter for both, their difference would be that of the secrets."""
    before = unpack(tarball(site.directory / "dist", "two"), site.directory / "before")
    (site.directory / "small.state/tokens/two").unlink()
    after = unpack(tarball(site.build("new", SEAL), "two"), site.directory / "after")
    one, two = ((path / SEALED).read_bytes() for path in (before, after))
    both = bytes(a ^ b for a, b in zip(one[16:], two[16:], strict=True))
    assert Counter(both).most_common(1)[0][1] < len(both) / 100
    assert read_codes(site.directory / "new") == read_codes(site.directory / "dist")


def test_the_unseal_codes_are_in_a_file_of_their_own(sealed: SmallSite) -> None:
    path = sealed.directory / "dist/UNSEAL.tsv"
    assert path.stat().st_mode & 0o777 == 0o600
    codes = read_codes(sealed.directory / "dist")
    assert codes.keys() == set(NODES)
    assert len({code for code, _ in codes.values()}) == 3
    assert "UNSEAL" not in (sealed.directory / "dist/SHA256SUMS").read_text()
    for node, (code, key) in codes.items():
        assert parse_code(code)
        manifest = read_manifest(tarball(sealed.directory / "dist", node))
        assert f"# seal-key {key}" in manifest
    assert codes["one"][1] in (sealed.directory / "dist/RUNBOOK.md").read_text()
    assert not (sealed.directory / "plain/UNSEAL.tsv").exists()


@pytest.mark.slow
def test_a_build_without_a_seal_removes_former_codes_with_a_warning(site: SmallSite) -> None:
    done = run("build", *site.arguments, "-o", site.directory / "dist")
    assert "were sealed, and this build does not seal them" in done.stderr
    assert not (site.directory / "dist/UNSEAL.tsv").exists()
    site.build("dist", SEAL)
    done = run("build", *site.arguments, "-o", site.directory / "dist", "--no-seal")
    assert (done.returncode, "were sealed" in done.stderr) == (0, False)


def test_a_code_is_random_and_tells_a_typing_mistake() -> None:
    codes = {make_code() for _ in range(100)}
    assert len(codes) == 100
    code = codes.pop()
    assert set("".join(codes)) <= set(ALPHABET)
    assert parse_code(f" {format_code(code)}\n") == code
    missed = 0
    for at in range(32):
        for letter in ALPHABET:
            changed = code[:at] + letter + code[at + 1 :]
            missed += changed != code and parse_code(changed) is not None
    assert missed <= 1  # of 992; one in 65,536 is expected
    assert parse_code(code[:-1]) is None
    assert len(ALPHABET) ** 28 >= 1 << 128


@pytest.mark.parametrize(
    "media",
    [
        pytest.param(Media(seal=True, layout=Layout.SPLIT), marks=pytest.mark.long),
        pytest.param(Media(seal=True, split=60_000), marks=pytest.mark.long),
        Media(seal=True, layout=Layout.SPLIT, split=5_000),
    ],
    ids=["split layout", "volumes", "both"],
)
@pytest.mark.slow
def test_sealed_bundles_verify_in_every_form(site: SmallSite, media: Media) -> None:
    directory = site.build("new", media)
    assert faults_of(directory) == []
    done = run("inspect", directory / "small-one.tar.gz")
    assert done.returncode == 0, done.stderr
    assert " rootfs/etc/kubernetes/pki/ca.key (sealed)\n" in done.stdout
    needles = list_needles(site.directory / "small.state")
    for node in NODES:
        with open_joined(tarball(directory, node)) as bundle:
            assert search(bundle.read(), needles) == set()
    whole = tarball(site.directory / "dist", "one")
    assert files_of(read_manifest(whole)) == files_of(_join(directory / "small-one.tar.gz"))


def _join(path: Path) -> list[str]:
    if not path.exists():
        parts = sorted(path.parent.glob(f"{path.name}.0*"))
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return read_manifest(path)


@pytest.mark.slow
def test_inspect_says_which_files_are_sealed_and_finds_an_altered_seal(site: SmallSite) -> None:
    path = tarball(site.directory / "dist", "two")
    key = read_codes(site.directory / "dist")["two"][1]
    done = run("inspect", path, "--json")
    report = json.loads(done.stdout)
    assert f"opened by a code (seal key {key})" in report["facts"]["SEALED"]
    assert report["elsewhere"]["rootfs/etc/kubernetes/bootstrap.kubeconfig"] == "seal"
    assert "rootfs/etc/kubernetes/bootstrap.kubeconfig" not in {f["path"] for f in report["files"]}
    directory = unpack(path, site.directory / "x")
    content = bytearray((directory / SEALED).read_bytes())
    content[1000] ^= 1
    (directory / SEALED).write_bytes(content)
    subprocess.run(["tar", "-czf", path, "-C", directory.parent, directory.name], check=True)
    done = run("inspect", path)
    assert (done.returncode, f"{SEALED}: differs from the manifest" in done.stderr) == (6, True)


def test_verify_warns_that_the_codes_must_not_travel_with_the_bundles(sealed: SmallSite) -> None:
    done = run("verify", sealed.directory / "dist")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "UNSEAL.tsv: opens the sealed bundles: it must not travel with them" in done.stderr


@pytest.mark.slow
def test_a_second_build_without_secrets_compares_a_sealed_build(site: SmallSite) -> None:
    def compare_builds() -> list[str]:
        both = tuple(verify(site.directory / "dist")), tuple(verify(site.directory / "public"))
        return [fault for verdict in compare(site.directory / "dist", *both) for fault in verdict.faults]  # fmt: skip

    assert compare_builds() == []
    manifest = unpack(tarball(site.directory / "dist", "two"), site.directory / "x") / "MANIFEST"
    manifest.write_text(f"# from-seal rootfs/etc/cron.d/evil {64 * 'a'}\n" + manifest.read_text())
    path = tarball(site.directory / "dist", "two")
    subprocess.run(["tar", "-czf", path, "-C", manifest.parents[1], "small-two"], check=True)
    sums = site.directory / "dist/SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if "small-two" not in line]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sums.write_text("\n".join([*lines, f"{digest}  {path.name}\n"]))
    assert compare_builds() == [
        "small-two.tar.gz: rootfs/etc/cron.d/evil: is not a secret, but is missing in the bundle without secrets"
    ]


@pytest.mark.slow
def test_diff_names_the_sealed_files_that_differ(site: SmallSite) -> None:
    (site.directory / "small.state/tokens/two").unlink()
    site.build("new", SEAL)
    done = run("diff", site.directory / "dist", site.directory / "new")
    assert done.returncode == 1, done.stderr
    changed = [line.split()[1] for line in done.stdout.splitlines() if " secret" in line]
    names = [path.rpartition("/")[2] for path in changed]
    assert sorted(names) == ["bootstrap-tokens.yaml:", "bootstrap.kubeconfig:"]
    assert "same  small-three.tar.gz" in done.stdout
    done = run("diff", site.directory / "plain", site.directory / "dist")
    assert "sealed: none → " in done.stdout
    assert "not compared: sealed with another key, or only one bundle is sealed" in done.stdout


@pytest.mark.slow
def test_plan_restarts_what_a_sealed_file_changes_and_nothing_else(site: SmallSite) -> None:
    done = run("certs", "renew", "csr-approver", "scheduler", *site.arguments)
    assert done.returncode == 0, done.stderr
    site.build("new", SEAL)
    done = run("plan", site.directory / "dist", site.directory / "new", "--json")
    hosts = {h["name"]: h for stage in json.loads(done.stdout)["stages"] for h in stage["hosts"]}
    assert [restart["unit"] for restart in hosts["one"]["restarts"]] == ["kube-scheduler.service"]
    assert "/etc/kubernetes/csr-approver.kubeconfig" in hosts["one"]["changed"]
    assert (hosts["two"]["restarts"], hosts["two"]["not_compared"]) == ([], "")
    assert "/etc/kubernetes/bootstrap.kubeconfig" not in hosts["two"]["changed"]
    done = run("plan", site.directory / "plain", site.directory / "dist")
    assert "note     secret files are sealed in only one of the builds" in done.stdout


@pytest.mark.slow
def test_a_delta_to_a_sealed_build_is_sealed_in_the_same_way(site: SmallSite) -> None:
    site.change("etcd")
    directory = site.build("new", Media(since=(str(site.directory / "to"),)))
    assert faults_of(directory) == []
    assert read_codes(directory).keys() == {"two", "three"}
    manifest = read_manifest(tarball(directory, "one"))
    assert [line for line in manifest if line.startswith("# sealed-to ")]
    assert f"{ENVELOPE}" in "\n".join(manifest)
    assert search(tarball(directory, "one").read_bytes(),
                  list_needles(site.directory / "small.state")) == set()  # fmt: skip
    plain = site.build("other", Media(since=(str(site.directory / "to"),), seal=False))
    assert not (plain / "UNSEAL.tsv").exists()
    base = [line for line in manifest if line.startswith("# base ")]
    assert base == [line for line in read_manifest(tarball(plain, "one")) if line[:7] == "# base "]
    shutil.rmtree(site.directory / "small.state/sealed-to")
    with pytest.raises(ConfigError, match="which is not in the state directory"):
        site.build("third", Media(since=(str(site.directory / "to"),)))
    assert not (site.directory / "third").exists()


@pytest.mark.slow
def test_a_renewal_of_a_sealed_build_is_sealed(site: SmallSite) -> None:
    since = ("--since", site.directory / "dist", "-o", site.directory / "renewal")
    done = run("certs", "renew", "--all", *since, *site.arguments)
    assert done.returncode == 0, done.stderr
    assert "UNSEAL.tsv opens the bundles: never copy it to their media" in done.stderr
    needles = list_needles(site.directory / "small.state")
    for node in NODES:
        path = tarball(site.directory / "renewal", node)
        assert search(path.read_bytes(), needles) == set()
    assert read_codes(site.directory / "renewal") == read_codes(site.directory / "dist")


@pytest.mark.slow
def test_a_lost_code_is_replaced_for_later_builds(site: SmallSite) -> None:
    before = read_codes(site.directory / "dist")
    done = run("seal", "renew", "one", "-c", site.directory / "cluster.yaml")
    assert done.returncode == 0, done.stderr
    site.build("new", Media(seal_to=(f"two={site.directory}/one.crt",)))
    site.build("dist", SEAL)
    after = read_codes(site.directory / "dist")
    assert after["one"] != before["one"]
    assert {node: after[node] for node in ("two", "three")} == {n: before[n] for n in ("two", "three")}  # fmt: skip
    envelope = (site.directory / "small.state/sealed-to/two/envelope").read_bytes()
    assert run("seal", "renew", "--all", "-c", site.directory / "cluster.yaml").returncode == 0
    assert (site.directory / "small.state/sealed-to/two/envelope").read_bytes() != envelope
    for arguments in ((), ("one", "--all"), ("four",)):
        done = run("seal", "renew", *arguments, "-c", site.directory / "cluster.yaml")
        assert done.returncode == 2, done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("one.crt", "must be NODE=CERT"),
        ("four=one.crt", "there is no node four"),
        ("one=nowhere.crt", "No such file"),
        ("one=one.key", "holds a private key, which must never leave its host"),
        ("one=cluster.yaml", "not a certificate in PEM"),
        ("one=ec.crt", "needs an RSA key of at least 2048 bits"),
        ("one=short.crt", "needs an RSA key of at least 2048 bits"),
    ],
)
@pytest.mark.slow
def test_a_wrong_certificate_is_refused_before_anything_is_written(
    site: SmallSite, given: str, expected: str
) -> None:
    if given == "one=ec.crt":
        make_certificate(
            site.directory, "ec", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"
        )
    if given == "one=short.crt":
        make_certificate(site.directory, "short", "-newkey", "rsa:1024")
    node, equals, name = given.rpartition("=")
    seal_to = f"{node}={site.directory}/{name}" if equals else given
    done = run("build", *site.arguments, "-o", site.directory / "new", "--seal-to", seal_to)
    assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (site.directory / "new").exists()


@pytest.mark.slow
def test_a_certificate_gets_a_code_that_no_person_has(site: SmallSite) -> None:
    """Who has the paper of an earlier build cannot open the bundle that is sealed to the host."""
    assert read_codes(site.directory / "to").keys() == {"two", "three"}
    keys = [read_manifest(tarball(site.directory / dist, "one")) for dist in ("dist", "to")]
    one, two = ([line for line in manifest if line.startswith("# seal-key")] for manifest in keys)
    assert one != two
    directory = unpack(tarball(site.directory / "to", "one"), site.directory / "x")
    done = subprocess.run(
        ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", directory / ENVELOPE,
         "-inkey", site.directory / "one.key"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert parse_code(done.stdout)
    assert done.stdout.strip() not in (site.directory / "dist/UNSEAL.tsv").read_text()


@pytest.mark.slow
def test_a_damaged_code_in_the_state_is_named(site: SmallSite) -> None:
    path = site.directory / "small.state/seals/one"
    path.write_text("not a code\n")
    with pytest.raises(PkiError, match="seals/one: not an unseal code"):
        site.build("new", SEAL)


def test_certs_list_says_that_kubeconfigs_are_sealed(sealed: SmallSite) -> None:
    done = run("certs", "list", tarball(sealed.directory / "dist", "one"))
    assert done.returncode == 0, done.stderr
    assert "files are sealed: certificates in kubeconfigs are not listed" in done.stderr
    assert "rootfs/etc/kubernetes/pki/apiserver.crt" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--seal", "--public-only"), "--public-only and --seal exclude each other"),
        (("--no-seal", "--seal-to", "one=x"), "--no-seal and --seal-to exclude each other"),
    ],
)
def test_options_that_contradict_a_seal_are_refused(
    sealed: SmallSite, arguments: tuple[str, ...], expected: str
) -> None:
    done = run("build", *sealed.arguments, *arguments)
    assert (done.returncode, expected in done.stderr) == (2, True)
