"""install.sh of bundles that do not contain all files: --payload, deltas; the result is the same."""

import dataclasses
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.descriptions import write_archive
from support.shells import Sh, write_program
from support.small_builds import SmallSite, make_site, unpack
from support.trees import list_tree

from bundler.bundle.layout import Layout, Media
from bundler.bundle.signing import generate_key, load_signing_key, sign

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    """old → new: etcd, the CNI plugins and one image change. Each as whole bundles and otherwise."""
    site = make_site(tmp_path_factory.mktemp("site"))
    key = site.directory / "release.key"
    generate_key(key)
    split = Media(layout=Layout.SPLIT)
    site.build("old")
    site.build("old-split", split, sign=key)
    site.change("etcd")
    site.change("cni-plugins")
    write_archive(site.directory / "nginx.tar", "docker.io/library/nginx:1.22", change="newer")
    since = (str(site.directory / "old"),)
    site.build("new")
    site.build("delta", Media(since=since), sign=key)
    site.build("delta-split", Media(layout=Layout.SPLIT, since=since))
    site.build("public", Media(public_only=True))
    return site


@dataclasses.dataclass
class Host:
    """A root directory, and how bundles of node `one` are installed there."""

    sh: Sh
    site: SmallSite
    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def bundle(self, dist: str) -> Path:
        """Unpacked; once."""
        directory = self.directory / dist
        if not directory.exists():
            (tarball,) = (self.site.directory / dist).glob("small-one*.tar.gz")
            unpack(tarball, directory)
        (bundle,) = directory.iterdir()
        return bundle

    def payload(self, dist: str) -> Path:
        (payload,) = (self.site.directory / dist).glob("payload-*.tar")
        return payload

    def install(self, dist: str, *arguments: object, **environment: str) -> tuple[int, str]:
        (self.root / "etc").mkdir(parents=True, exist_ok=True)
        script = self.bundle(dist) / "install.sh"
        done = self.sh(script, *map(str, arguments), DESTDIR=str(self.root), **environment)
        return done.returncode, done.stdout + done.stderr

    def tree(self) -> dict[str, str]:
        """All files but the journal, which holds times."""
        tree = list_tree(self.root)
        tree.pop("var/lib/bundler/journal", None)
        return tree


@pytest.fixture
def host(sh: Sh, built: SmallSite, tmp_path: Path) -> Host:
    return Host(sh, built, tmp_path / "host")


@pytest.fixture
def other(sh: Sh, built: SmallSite, tmp_path: Path) -> Host:
    """A second host, for whole bundles."""
    return Host(sh, built, tmp_path / "other")


@pytest.mark.parametrize(
    "form",
    [
        "file",
        "unpacked",
        *(
            pytest.param(form, marks=pytest.mark.long)
            for form in ("its directory", "parent of unpacked")
        ),
    ],
)
def test_a_split_bundle_with_its_payload_installs_the_same_files(
    host: Host, other: Host, tmp_path: Path, form: str
) -> None:
    payload = host.payload("old-split")
    subprocess.run(["tar", "-xf", payload, "-C", tmp_path], check=True)
    given = {
        "file": payload,
        "its directory": payload.parent,
        "unpacked": tmp_path / payload.stem,
        "parent of unpacked": tmp_path,
    }[form]
    code, said = host.install("old-split", "--payload", given)
    assert code == 0, said
    assert other.install("old")[0] == 0
    assert host.tree() == other.tree()
    assert (host.root / "opt/k8s/bin/kubelet").stat().st_mode & 0o777 == 0o755
    assert host.install("old-split") == (0, "one: nothing to do\n")


def test_busybox_tar_and_gzip_read_the_payload_too(host: Host, other: Host, tmp_path: Path) -> None:
    for name in ("tar", "gzip", "sha256sum", "awk"):
        write_program(tmp_path / "bin" / name, f'exec busybox {name} "$@"\n')
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    code, said = host.install("old-split", "--payload", host.payload("old-split"), PATH=path)
    assert code == 0, said
    assert other.install("old")[0] == 0
    assert host.tree() == other.tree()
    newer = tmp_path / "payload.tar"
    newer.write_bytes(host.payload("delta-split").read_bytes())
    assert host.install("delta", "--payload", newer, PATH=path)[0] == 0
    code, said = host.install("old-split", "--payload", newer, PATH=path)
    assert (code, "and this bundle needs payload-" in said) == (3, True)


def test_a_split_bundle_without_its_payload_names_it_and_changes_nothing(host: Host) -> None:
    code, said = host.install("old-split")
    assert code == 3
    name = host.payload("old-split").name
    assert f"files of this bundle are in {name}" in said
    assert f"fix: run install.sh --payload {name}" in said
    assert host.tree() == {}


def test_the_payload_of_another_build_is_refused_by_name(host: Host, tmp_path: Path) -> None:
    ours, theirs = host.payload("old-split"), host.payload("delta-split")
    subprocess.run(["tar", "-xf", theirs, "-C", tmp_path], check=True)
    for given in (theirs, tmp_path / theirs.stem):
        code, said = host.install("old-split", "--payload", given)
        assert code == 3
        assert f"is {theirs.stem}, and this bundle needs {ours.stem}" in said
    assert host.tree() == {}


@pytest.mark.parametrize("fault", ["altered", "cut off", "no payload", "volume", "sums altered"])
def test_a_bad_payload_is_refused_before_anything_changes(
    host: Host, tmp_path: Path, fault: str
) -> None:
    payload = tmp_path / host.payload("old-split").name
    content = bytearray(host.payload("old-split").read_bytes())
    with tarfile.open(host.payload("old-split")) as tar:
        middle = tar.getmembers()[5].offset_data + 20
    place = {"altered": middle, "sums altered": 520}.get(fault)
    if place:
        content[place] ^= 1
    payload.write_bytes(
        {"cut off": content[:-12_000], "no payload": b"x" * 2048, "volume": content[4_000:]}.get(
            fault, content
        )
    )
    code, said = host.install("old-split", "--payload", payload)
    assert code == 3, said
    expected = {
        "no payload": "is not a payload",
        "volume": "is not a payload (or it is one volume of it)",
        "sums altered": "is damaged",
    }
    assert expected.get(fault, "is damaged or truncated; bad or missing files in it: ") in said
    assert host.tree() == {}


def test_an_altered_file_of_the_unpacked_payload_is_named(host: Host, tmp_path: Path) -> None:
    payload = host.payload("old-split")
    subprocess.run(["tar", "-xf", payload, "-C", tmp_path], check=True)
    kubelet = next(
        line.split()[0]
        for line in (host.bundle("old-split") / "MANIFEST").read_text().splitlines()
        if line.endswith("/kubelet") and not line.startswith("#")
    )
    (tmp_path / payload.stem / f"{kubelet}.tar.gz").write_bytes(b"evil")
    code, said = host.install("old-split", "--payload", tmp_path)
    assert (code, "bad or missing files in it: rootfs/opt/k8s/bin/kubelet" in said) == (3, True)
    assert host.tree() == {}


def test_a_payload_that_is_not_needed_is_a_warning(host: Host) -> None:
    code, said = host.install("old", "--payload", host.payload("old-split"))
    assert (code, "--payload is not needed" in said) == (0, True)
    code, said = host.install("old", "--payload", "/nowhere")
    assert (code, "--payload needs the file" in said) == (2, True)


def test_a_delta_installs_the_same_files_as_the_complete_bundle(host: Host, other: Host) -> None:
    for each in (host, other):
        assert each.install("old")[0] == 0
    code, said = host.install("delta")
    assert code == 0, said
    assert other.install("new")[0] == 0
    assert host.tree() == other.tree()
    assert host.install("delta") == (0, "one: nothing to do\n")
    assert host.install("new") == (0, "one: nothing to do\n")


def test_a_delta_in_the_layout_split_installs_the_same_files(host: Host, other: Host) -> None:
    for each in (host, other):
        assert each.install("old")[0] == 0
    assert "run install.sh --payload" in host.install("delta-split")[1]
    code, said = host.install("delta-split", "--payload", host.payload("delta-split"))
    assert code == 0, said
    assert other.install("new")[0] == 0
    assert host.tree() == other.tree()


def test_a_delta_installs_on_a_host_that_was_installed_with_another_layout(host: Host) -> None:
    payload = host.payload("old-split")
    assert host.install("old-split", "--payload", payload)[0] == 0
    assert host.install("delta")[0] == 0


def test_a_delta_is_refused_without_its_base(host: Host) -> None:
    code, said = host.install("delta")
    assert (code, "and no bundle is installed here" in said) == (3, True)
    assert host.tree() == {}
    assert host.install("old")[0] == 0
    manifest = host.root / "opt/k8s/bundle/MANIFEST"
    manifest.write_text(manifest.read_text().replace("0755", "0750", 1))
    before = host.tree()
    code, said = host.install("delta")
    assert (code, "this bundle is a change to " in said) == (3, True)
    assert "Nothing was changed." in said
    assert host.tree() == before


def test_a_delta_names_the_installed_files_that_were_altered(host: Host) -> None:
    assert host.install("old")[0] == 0
    (host.root / "opt/k8s/bin/kubelet").write_bytes(b"evil")
    (host.root / "opt/k8s/bin/kubectl").unlink()
    before = host.tree()
    code, said = host.install("delta")
    assert code == 3
    assert "    /opt/k8s/bin/kubelet: altered\n" in said
    assert "    /opt/k8s/bin/kubectl: missing\n" in said
    assert "/opt/k8s/bin/kube-apiserver" not in said
    assert host.tree() == before
    assert host.install("new")[0] == 0


HEADERS = {
    "no base": ("delta", "# base ", "", "MANIFEST has `# from-base`, and no `# base`"),
    "a base of no digest": ("delta", "# base ", "# base x\n", "line 1 of MANIFEST is not as"),
    "no payload": ("old-split", "# payload ", "", "MANIFEST has `# from-payload`, and no `# payload`"),
    "an unknown source": (
        "old-split", "# payload ", "# from-moon rootfs/opt/k8s/bin/etcd\n", "line 1 of MANIFEST is not as",
    ),
    "a script from the base": (
        "delta", "# base ", f"# base {'0' * 64}\n# from-base verify.sh\n",
        "line 2 of MANIFEST is not as",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "signed", [False, pytest.param(True, marks=pytest.mark.long)], ids=["unsigned", "signed"]
)
@pytest.mark.parametrize("fault", HEADERS)
def test_a_manifest_that_does_not_name_its_sources_is_refused_in_preflight(
    host: Host, fault: str, signed: bool
) -> None:
    """Without a base nothing compared the host's files, and the run failed while it copied them."""
    assert host.install("old")[0] == 0
    (host.root / "opt/k8s/bin/kubelet").write_bytes(b"evil")
    dist, start, line, expected = HEADERS[fault]
    manifest = host.bundle(dist) / "MANIFEST"
    lines = manifest.read_text().splitlines(keepends=True)
    assert lines[0].startswith(start)
    manifest.write_text(line + "".join(lines[1:]))
    if "verify.sh" in line:
        (manifest.parent / "verify.sh").unlink()
    trust = sign_again(manifest, host.site) if signed else []
    before = host.tree()
    code, said = host.install(dist, *trust)
    assert (code, expected in said, "Nothing was changed." in said) == (3, True, True), said
    assert host.tree() == before


def sign_again(manifest: Path, site: SmallSite) -> list[object]:
    """Sign an altered manifest, as a builder with a fault would; the option to trust it."""
    key = load_signing_key(site.directory / "release.key")
    (manifest.parent / "MANIFEST.sig").write_bytes(sign(key, manifest.read_bytes()))
    return ["--trust", site.directory / "release.pub"]


def test_a_delta_restores_the_mode_of_a_file_that_it_does_not_contain(
    host: Host, other: Host
) -> None:
    for each in (host, other):
        assert each.install("old")[0] == 0
    (host.root / "opt/k8s/bin/kubelet").chmod(0o700)
    assert host.install("delta")[0] == 0
    assert other.install("new")[0] == 0
    assert host.tree() == other.tree()


@pytest.mark.parametrize(
    "moment", [2, *(pytest.param(moment, marks=pytest.mark.long) for moment in (1, 4, 8))]
)
def test_the_next_run_completes_a_killed_delta(
    host: Host, other: Host, tmp_path: Path, moment: int
) -> None:
    for each in (host, other):
        assert each.install("old")[0] == 0
    count = tmp_path / "count"
    count.write_text("0")
    write_program(
        tmp_path / "bin/mv",
        f"n=$(($(cat {count}) + 1)); echo $n >{count}; [ $n -ne {moment} ] || kill -9 $PPID\n"
        f'exec {shutil.which("mv")} "$@"\n',
    )
    assert host.install("delta", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")[0] == -9
    code, said = host.install("delta")
    assert code == 0, said
    assert other.install("new")[0] == 0
    assert host.tree() == other.tree()


def test_a_missing_file_of_the_bundle_itself_is_still_refused(host: Host) -> None:
    assert host.install("old")[0] == 0
    (host.bundle("delta") / "rootfs/opt/k8s/bin/etcd").unlink()
    code, said = host.install("delta")
    assert (code, "rootfs/opt/k8s/bin/etcd: missing" in said) == (3, True)


def test_a_public_bundle_cannot_be_installed(host: Host) -> None:
    code, said = host.install("public")
    assert (code, "it has no keys" in said) == (3, True)
    assert host.tree() == {}


@pytest.mark.parametrize("dist", ["old-split", "delta"])
def test_the_signature_covers_where_files_come_from(host: Host, dist: str) -> None:
    trust = ("--trust", host.site.directory / "release.pub", "--payload", host.payload("old-split"))
    assert host.install("old")[0] == 0
    assert host.install(dist, *trust)[0] == 0
    manifest = host.bundle(dist) / "MANIFEST"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:1] + lines[2:]))
    code, said = host.install(dist, *trust)
    assert (code, "no key that this host trusts signed it" in said) == (3, True)
