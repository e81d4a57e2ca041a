"""install.sh opens a sealed bundle with its code or key, and changes nothing without it."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.cases import first_cases
from support.generation_site import CONFIG, KEY, WENT_BACK, Site, make_site, plant_failure
from support.sealed_bundles import seal_directory
from support.shells import SHELLS, Sh, write_program
from support.small_builds import make_site as make_small_site
from support.small_builds import unpack
from support.terminal import Session, run_on_terminal
from support.trees import Trees, list_tree

from bundler.bundle.layout import Layout, Media
from bundler.bundle.seal import ENVELOPE, SEALED, SealKey
from bundler.bundle.signing import SIGNATURE, generate_key, load_signing_key, sign
from bundler.bundle.unseal_code import format_code, make_code

REFUSED = 6
PROMPT = "(not shown): "
RENAMED = {"0": "o", "1": "l"}
"""How a person may read a digit."""


@dataclass
class Staged:
    """worker1's bundle, plain and sealed, for an installation with DESTDIR."""

    shell: list[str]
    plain: Path
    sealed: Path
    key: SealKey
    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        return format_code(self.key.code)

    def install(
        self, *arguments: str | Path, typed: str = "", bundle: Path | None = None
    ) -> tuple[int, str]:
        """Run without a terminal; `typed` is stdin."""
        done = subprocess.run(
            [*self.shell, str((bundle or self.sealed) / "install.sh"), *map(str, arguments)],
            input=typed, capture_output=True, text=True, check=False, start_new_session=True,
            env={**os.environ, "DESTDIR": str(self.root), **self.environment},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def on_terminal(self, answer: str, **options: int) -> Session:
        environment = {"DESTDIR": str(self.root), **self.environment}
        command = [*self.shell, str(self.sealed / "install.sh")]
        return run_on_terminal(command, {PROMPT: answer}, environment, **options)

    def reseal(self, sealed: bytes) -> None:
        """Replace the ciphertext, and the digest in MANIFEST, as an attacker without a key can."""
        from hashlib import sha256

        manifest = self.sealed / "MANIFEST"
        before = manifest.read_text().partition(f" {SEALED}\n")[0].split()[-3]
        (self.sealed / SEALED).write_bytes(sealed)
        manifest.write_text(manifest.read_text().replace(before, sha256(sealed).hexdigest()))


@pytest.fixture(params=SHELLS, ids=[shell[0] for shell in SHELLS])
def staged(request: pytest.FixtureRequest, trees: Trees, tmp_path: Path) -> Staged:
    key = SealKey(code=make_code())
    (tmp_path / "root").mkdir()
    sealed = seal_directory(trees / "worker1", tmp_path / "sealed", key)
    return Staged(request.param, trees / "worker1", sealed, key, tmp_path / "root")


@pytest.fixture
def code_file(staged: Staged, tmp_path: Path) -> Path:
    path = tmp_path / "code"
    path.touch(mode=0o600)
    path.write_text(f"{staged.code}\n")
    return path


def mistype(code: str) -> str:
    """Another letter in the third group."""
    return code[:11] + ("2" if code[11] != "2" else "3") + code[12:]


@pytest.mark.slow
def test_a_sealed_bundle_installs_the_same_files(
    staged: Staged, code_file: Path, tmp_path: Path
) -> None:
    assert not (staged.sealed / "rootfs" / KEY).exists()
    code, said = staged.install("--unseal-file", code_file)
    assert code == 0, said
    installed = list_tree(staged.root)
    staged.root = tmp_path / "other"
    staged.root.mkdir()
    assert staged.install(bundle=staged.plain)[0] == 0
    plain = list_tree(staged.root)
    for tree in (installed, plain):
        del tree["var/lib/bundler/journal"]
    assert installed == plain
    assert installed[KEY].startswith("600 ")


@pytest.mark.parametrize(
    "form", ["lower case", "no dashes", "read wrongly", "UNSEAL.tsv", "spaces"]
)
@pytest.mark.slow
def test_the_code_may_be_written_in_several_ways(staged: Staged, form: str) -> None:
    text = {
        "lower case": staged.code.lower(),
        "no dashes": staged.code.replace("-", ""),
        "read wrongly": "".join(RENAMED.get(letter, letter) for letter in staged.code),
        "UNSEAL.tsv": f"# comment\nother\t{format_code(make_code())}\tx\nworker1\t{staged.code}\tx",
        "spaces": f"  {staged.code.replace('-', ' ')} \r",
    }[form]
    code, said = staged.install("--unseal-file", "-", typed=f"{text}\n")
    assert code == 0, said
    assert staged.install("--unseal-file", "-", "--dry-run", typed=text) == (0, "worker1: nothing to do\nDry run: nothing was changed.\n")  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mistyped", "the code has a typing mistake: its last group does not match"),
        ("of another node", "this is not the code of this bundle, but of another node"),
        ("too short", "an unseal code has eight groups of four letters and digits"),
        ("not a code", "an unseal code has eight groups of four letters and digits"),
        ("empty", "has no code for worker1"),
        ("lines of other nodes", "has no code for worker1"),
    ],
)
def test_a_wrong_code_is_refused_before_anything_changes(
    staged: Staged, tmp_path: Path, given: str, expected: str
) -> None:
    text = {
        "mistyped": mistype(staged.code),
        "of another node": format_code(make_code()),
        "too short": staged.code[:-5],
        "not a code": "$(touch /tmp/x); `id` ' \" \\ ü",
        "empty": "",
        "lines of other nodes": f"worker2\t{staged.code}\tx",
    }[given]
    (tmp_path / "given").write_text(text)
    before = list_tree(staged.root), list_tree(staged.sealed)
    code, said = staged.install("--unseal-file", tmp_path / "given")
    assert (code, expected in said) == (REFUSED, True), said
    assert "Nothing was changed." in said
    assert (list_tree(staged.root), list_tree(staged.sealed)) == before
    assert staged.code not in said
    assert "warning: other users can read" in said


def test_a_missing_code_without_a_terminal_is_refused(staged: Staged) -> None:
    code, said = staged.install()
    assert (code, "there is no terminal to ask for the unseal code" in said) == (REFUSED, True), (
        said
    )
    assert "fix: run install.sh --unseal-file FILE, or - for stdin" in said
    assert list_tree(staged.root) == {}
    code, said = staged.install("--unseal-file", "/nowhere")
    assert (code, "--unseal-file needs a file" in said, "/nowhere" in said) == (2, True, False)


@pytest.mark.slow
def test_the_code_is_asked_for_on_the_terminal_and_not_shown(staged: Staged) -> None:
    session = staged.on_terminal(f"{staged.code}\n")
    assert session.code == 0, session.screen
    assert "Unseal code of lab/worker1, seal key " in session.screen
    assert staged.key.identifier in session.screen
    assert staged.code[:9] not in session.screen
    assert (staged.root / KEY).is_file()


def test_a_code_may_be_typed_three_times(staged: Staged) -> None:
    session = staged.on_terminal(f"{mistype(staged.code)}\n", times=3)
    assert session.code == REFUSED, session.screen
    assert session.screen.count(PROMPT) == 3
    assert session.screen.count("typing mistake") == 3
    assert mistype(staged.code)[:9] not in session.screen
    assert list_tree(staged.root) == {}


def test_an_interrupt_at_the_prompt_changes_nothing_and_shows_typing_again(staged: Staged) -> None:
    session = staged.on_terminal("\x03")
    assert session.code == 130, session.screen
    assert session.echoes
    assert list_tree(staged.root) == {}


@pytest.mark.parametrize("change", ["a byte", "cut off", "longer", "of another build", "its salt"])
@pytest.mark.slow
def test_an_altered_ciphertext_is_refused_before_anything_changes(
    staged: Staged, code_file: Path, change: str, tmp_path: Path
) -> None:
    content = bytearray((staged.sealed / SEALED).read_bytes())
    other = shutil.copytree(staged.plain, tmp_path / "other")
    (other / "rootfs" / KEY).write_text("token: other\n")
    another = seal_directory(other, tmp_path / "another", staged.key)
    content[9 if change == "its salt" else 1000] ^= change in {"a byte", "its salt"}
    altered = {
        "cut off": bytes(content[:-1]),
        "longer": bytes(content) + b"\0",
        "of another build": (another / SEALED).read_bytes(),
    }.get(change, bytes(content))
    manifest = (staged.sealed / "MANIFEST").read_text()
    staged.reseal(altered)
    reached = staged.install("--unseal-file", code_file)
    assert (reached[0], "is not what was sealed" in reached[1]) == (REFUSED, True), reached[1]
    (staged.sealed / "MANIFEST").write_text(manifest)
    reached = staged.install("--unseal-file", code_file)
    assert (reached[0], f"{SEALED}: altered or damaged" in reached[1]) == (3, True), reached[1]
    assert list_tree(staged.root) == {}


def test_secrets_of_another_build_are_refused(
    staged: Staged, code_file: Path, tmp_path: Path
) -> None:
    """An attacker without the code pairs the seal of one bundle with the files of another."""
    other = shutil.copytree(staged.plain, tmp_path / "other")
    with (other / "uninstall.sh").open("a") as script:
        script.write("echo evil\n")
    another = seal_directory(other, tmp_path / "another", staged.key)
    tags = [line for line in (staged.sealed / "MANIFEST").read_text().splitlines() if line.startswith("# seal ")]  # fmt: skip
    text = (another / "MANIFEST").read_text().splitlines(keepends=True)
    (another / "MANIFEST").write_text(
        "".join(f"{tags[0]}\n" if line.startswith("# seal ") else line for line in text)
    )
    staged.sealed, sealed = another, staged.sealed
    staged.reseal((sealed / SEALED).read_bytes())
    code, said = staged.install("--unseal-file", code_file)
    assert (code, "belongs to another MANIFEST" in said) == (REFUSED, True), said
    assert list_tree(staged.root) == {}


def test_a_file_that_the_manifest_does_not_name_is_not_taken_from_the_seal(
    staged: Staged, code_file: Path
) -> None:
    """A dishonest builder seals more than the second builder can see."""
    manifest = staged.sealed / "MANIFEST"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if KEY not in line))
    code, said = staged.install("--unseal-file", code_file)
    assert (code, "belongs to another MANIFEST" in said) == (REFUSED, True), said
    assert list_tree(staged.root) == {}


@pytest.mark.slow
def test_no_secret_is_in_the_arguments_or_the_environment_of_a_program(
    staged: Staged, code_file: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    programs = "awk cat cp cut df env find head mkdir mktemp mv openssl rm sed sha256sum sort stat stty tar tr wc xargs"  # fmt: skip
    for name in programs.split():
        real = shutil.which(name, path="/usr/bin:/bin")
        write_program(
            tmp_path / "bin" / name,
            f'{{ printf "%s " "$0" "$@"; /usr/bin/env; }} >>{log}\nexec {real} "$@"\n',
        )
    staged.environment["PATH"] = f"{tmp_path}/bin:/usr/bin:/bin"
    code, said = staged.install("--unseal-file", code_file)
    assert code == 0, said
    seen = log.read_text()
    assert "enc -d -aes-256-ctr" in seen
    for secret in (staged.code, staged.key.code, staged.key.code[:28], *derive(staged)):
        assert secret not in seen
        assert secret not in said


def derive(staged: Staged) -> list[str]:
    """The password that openssl gets."""
    from bundler.bundle.seal import _hash

    tag = (staged.sealed / "MANIFEST").read_text().partition("# seal ")[2][:64]
    return [_hash("encryption", staged.key.code, tag)]


@pytest.mark.slow
def test_a_host_with_busybox_opens_a_sealed_bundle(
    staged: Staged, code_file: Path, tmp_path: Path
) -> None:
    for name in (
        "awk",
        "cat",
        "cut",
        "df",
        "find",
        "head",
        "mkdir",
        "sort",
        "stat",
        "tar",
        "tr",
        "wc",
        "xargs",
    ):
        write_program(tmp_path / "bin" / name, f'exec busybox {name} "$@"\n')
    staged.environment["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"
    code, said = staged.install("--unseal-file", code_file)
    assert code == 0, said
    assert list_tree(staged.root)[KEY] == list_tree(staged.plain / "rootfs")[KEY]


@pytest.mark.slow
def test_a_host_without_openssl_cannot_open_a_sealed_bundle(
    staged: Staged, code_file: Path, tmp_path: Path
) -> None:
    script = staged.sealed / "lib/transaction/seal.sh"
    assert "command -v openssl" in script.read_text()
    (tmp_path / "bin").mkdir()
    for directory in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(directory).iterdir():
            link = tmp_path / "bin" / program.name
            if program.name != "openssl" and not link.is_symlink():
                link.symlink_to(program)
    install = staged.sealed / "install.sh"
    text = install.read_text()
    install.write_text(text.replace("\nPATH=", f"\nPATH={tmp_path}/bin # "))
    lines = (staged.sealed / "MANIFEST").read_text().splitlines(keepends=True)
    (staged.sealed / "MANIFEST").write_text("".join(line for line in lines if "install.sh" not in line))  # fmt: skip
    script = install.read_text().replace("check_manifest || exit 3", "")
    install.write_text(script)
    code, said = staged.install("--unseal-file", code_file)
    assert (code, "this host has no openssl, which opens sealed bundles" in said) == (
        REFUSED,
        True,
    ), said


@pytest.fixture
def host_key(tmp_path: Path) -> Path:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=worker1",
         "-keyout", tmp_path / "host.key", "-out", tmp_path / "host.crt"], check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path / "host.key"


def seal_to(staged: Staged, certificate: Path, target: Path) -> SealKey:
    """Seal to a certificate, with the code that the state directory would have."""
    from cryptography import x509

    from bundler.bundle.seal_keys import ensure_seal_keys
    from bundler.state.directory import open_state

    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    with open_state(target.parent / "state", create=True) as state:
        (key,) = ensure_seal_keys(state, {"worker1": loaded}).values()
    staged.sealed = seal_directory(staged.plain, target, key)
    return key


@pytest.mark.slow
def test_the_key_of_the_hosts_certificate_opens_its_bundle(
    staged: Staged, host_key: Path, tmp_path: Path
) -> None:
    key = seal_to(staged, tmp_path / "host.crt", tmp_path / "to")
    code, said = staged.install()
    assert (code, f"whose SHA-256 begins with {key.recipient[:16]}" in said) == (REFUSED, True), (
        said
    )
    code, said = staged.install("--unseal-file", "-", typed=f"{format_code(make_code())}\n")
    assert (code, "--unseal-key FILE" in said) == (REFUSED, True), said
    assert list_tree(staged.root) == {}
    code, said = staged.install("--unseal-key", host_key)
    assert code == 0, said
    assert list_tree(staged.root)[KEY] == list_tree(staged.plain / "rootfs")[KEY]
    assert format_code(key.code) not in said


@pytest.mark.parametrize("wrong", ["another key", "not a key", "an altered envelope"])
@pytest.mark.slow
def test_another_key_is_refused_before_anything_changes(
    staged: Staged, host_key: Path, tmp_path: Path, wrong: str
) -> None:
    seal_to(staged, tmp_path / "host.crt", tmp_path / "to")
    given = host_key
    if wrong == "another key":
        given = tmp_path / "other.key"
        subprocess.run(
            ["openssl", "genrsa", "-out", given, "2048"], check=True, capture_output=True
        )
    elif wrong == "not a key":
        given = tmp_path / "host.crt"
    else:
        envelope = staged.sealed / ENVELOPE
        envelope.write_bytes(envelope.read_bytes()[:-8] + b"12345678")
    code, said = staged.install("--unseal-key", given)
    expected = "altered or damaged" if wrong == "an altered envelope" else "does not open it"
    assert (code, expected in said) == (3 if "altered" in wrong else REFUSED, True), said
    assert list_tree(staged.root) == {}


def test_a_key_for_a_bundle_that_is_sealed_with_a_code_is_refused(
    staged: Staged, host_key: Path
) -> None:
    code, said = staged.install("--unseal-key", host_key)
    assert (code, "this bundle is sealed with a code" in said) == (REFUSED, True), said


@pytest.mark.slow
@pytest.mark.parametrize("form", ["delta", "split layout", "both"])
def test_a_sealed_bundle_in_every_form_installs_the_same_files(
    staged: Staged, tmp_path: Path, form: str
) -> None:
    small = make_small_site(tmp_path / "small")
    layout = Layout.FULL if form == "delta" else Layout.SPLIT
    since = () if form == "split layout" else (str(small.directory / "old"),)
    small.build("old", Media(seal=True))
    small.change("etcd")
    small.build("new")
    small.build("sealed", Media(seal=True, layout=layout, since=since))
    codes = tmp_path / "small/sealed/UNSEAL.tsv"
    payloads = list((small.directory / "sealed").glob("payload-*.tar"))
    options = ["--unseal-file", codes, *(("--payload", payloads[0]) if payloads else ())]
    old, new, sealed = (
        unpack(small.directory / name / "small-one.tar.gz", tmp_path / name)
        for name in ("old", "new", "sealed")
    )
    code, said = staged.install("--unseal-file", codes, bundle=old)
    assert code == 0, said
    code, said = staged.install(*options, bundle=sealed)
    assert code == 0, said
    assert staged.install(bundle=new) == (0, "one: nothing to do\n")
    if since:
        staged.root = tmp_path / "empty"
        staged.root.mkdir()
        code, said = staged.install(*options, bundle=sealed)
        assert (code, "no bundle is installed here" in said) == (3, True), said


@dataclass
class SealedSite:
    """A fake host, and its bundles 1 and 2, sealed with one code."""

    site: Site
    key: SealKey
    code_file: Path

    def install(self, number: int, *arguments: str) -> tuple[int, str]:
        done = self.site.install(number, *arguments)
        return done.returncode, done.stdout + done.stderr

    def open(self, number: int, *arguments: str) -> tuple[int, str]:
        return self.install(number, "--unseal-file", str(self.code_file), *arguments)

    @property
    def run(self) -> Path:
        return self.site.host.live / "run"


@pytest.fixture
def make_sealed(sh: Sh, trees: Trees, tmp_path: Path) -> Callable[..., SealedSite]:
    def make(prepare: Callable[[Site], None] = lambda site: None, sign_with: Path | None = None) -> SealedSite:  # fmt: skip
        site = make_site(sh, trees, tmp_path)
        prepare(site)
        key = SealKey(code=make_code())
        (site.host.live / "run").mkdir()
        for at in (0, 1):
            manifest = (site.bundles[at] / "MANIFEST").read_bytes()
            signature = sign(load_signing_key(sign_with), manifest) if sign_with else b""
            site.bundles[at] = seal_directory(site.bundles[at], trees / f"sealed{at + 1}", key, signature)  # fmt: skip
            if sign_with:
                outer = (site.bundles[at] / "MANIFEST").read_bytes()
                (site.bundles[at] / SIGNATURE).write_bytes(sign(load_signing_key(sign_with), outer))
        code_file = tmp_path / "code"
        code_file.write_text(f"{format_code(key.code)}\n")
        code_file.chmod(0o600)
        return SealedSite(site, key, code_file)

    return make


@pytest.mark.slow
def test_the_same_bundle_needs_no_code_a_second_time(
    make_sealed: Callable[..., SealedSite],
) -> None:
    sealed = make_sealed()
    code, said = sealed.open(1)
    assert code == 0, said
    assert list(sealed.run.iterdir()) == []
    assert sealed.install(1) == (0, "worker1: nothing to do\n")
    secret = sealed.site.root / KEY
    secret.write_text("altered\n")
    code, said = sealed.install(1)
    assert (code, secret.read_text()) == (0, "token: secret-1\n"), said
    # a generation whose secret is damaged cannot give it
    (sealed.site.store / "generations/1/rootfs" / KEY).write_text("altered\n")
    secret.write_text("altered\n")
    before = sealed.site.installed()
    code, said = sealed.install(1)
    assert (code, "no terminal to ask" in said) == (REFUSED, True), said
    assert sealed.site.installed() == before
    assert sealed.open(1)[0] == 0
    assert secret.read_text() == "token: secret-1\n"


@pytest.mark.slow
def test_a_sealed_bundle_becomes_the_generation_of_the_bundle_without_a_seal(
    make_sealed: Callable[..., SealedSite], trees: Trees
) -> None:
    sealed = make_sealed()
    assert sealed.open(1)[0] == 0
    generation = list_tree(sealed.site.store / "generations/1")
    for name in ("state", "MANIFEST.sealed"):
        del generation[name]
    plain = list_tree(trees / "bundle1")
    assert generation.pop("MANIFEST").split()[1] == plain.pop("MANIFEST").split()[1]
    assert generation == plain
    done = sealed.site.run(trees / "bundle1/install.sh")
    assert (done.returncode, done.stdout) == (0, "worker1: nothing to do\n")
    assert sealed.site.current() == "1"


@pytest.mark.slow
def test_a_bundle_that_is_installed_without_a_seal_asks_once(
    make_sealed: Callable[..., SealedSite], trees: Trees
) -> None:
    sealed = make_sealed()
    assert sealed.site.run(trees / "bundle1/install.sh").returncode == 0
    assert sealed.install(1)[0] == REFUSED
    assert sealed.open(1) == (0, "worker1: nothing to do\n")
    assert sealed.install(1) == (0, "worker1: nothing to do\n")
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("given", ["mistyped", "of another node", "missing"])
def test_a_running_host_stays_as_it_is_with_a_wrong_code(
    make_sealed: Callable[..., SealedSite], given: str
) -> None:
    sealed = make_sealed()
    assert sealed.open(1)[0] == 0
    text = {"mistyped": mistype(format_code(sealed.key.code)), "missing": ""}
    sealed.code_file.write_text(text.get(given, format_code(make_code())))
    before = list_tree(sealed.site.host.directory)
    code, said = sealed.install(2) if given == "missing" else sealed.open(2)
    assert code == REFUSED, said
    after = list_tree(sealed.site.host.directory)
    for tree in (before, after):
        del tree["calls"]
    assert after == before
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
def test_rollback_needs_no_code(make_sealed: Callable[..., SealedSite]) -> None:
    sealed = make_sealed()
    for number in (1, 2):
        assert sealed.open(number)[0] == 0
    own = sealed.site.root / "opt/k8s/bundle/install.sh"
    done = sealed.site.run(own, "--rollback")
    assert (done.returncode, sealed.site.current()) == (0, "1"), done.stderr
    assert (sealed.site.root / KEY).read_text() == "token: secret-1\n"
    assert sealed.install(2)[0] == 0
    assert (sealed.site.root / KEY).read_text() == "token: secret-2\n"


@pytest.mark.slow
def test_a_sealed_generation_that_is_not_healthy_goes_back(
    make_sealed: Callable[..., SealedSite],
) -> None:
    sealed = make_sealed(lambda site: plant_failure(site.bundles[1]))
    assert sealed.open(1)[0] == 0
    code, said = sealed.open(2)
    assert code == WENT_BACK, said
    assert (sealed.site.root / KEY).read_text() == "token: secret-1\n"
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
def test_a_dry_run_without_the_code_shows_which_secrets_differ(
    make_sealed: Callable[..., SealedSite],
) -> None:
    sealed = make_sealed()
    code, said = sealed.install(1, "--dry-run")
    assert (code, f"new      0600 /{KEY}\n" in said) == (0, True), said
    assert sealed.open(1)[0] == 0
    before = list_tree(sealed.site.root)
    code, said = sealed.install(2, "--plan")
    assert code == 0, said
    lines = [line.split() for line in said.splitlines() if line.startswith("sealed ")]
    assert [line[2] for line in lines] == [f"/{KEY}"]
    assert f"changed  0644 /{CONFIG}" in said
    assert "Sealed files were not compared" in said
    code, said = sealed.install(2, "--plan", "--json")
    files = {file["path"]: file for file in json.loads(said)["files"]}
    assert (files[f"/{KEY}"]["change"], files[f"/{KEY}"]["sha256"]) == ("sealed", None)
    code, said = sealed.open(2, "--dry-run")
    assert (code, f"changed  0600 /{KEY}\n" in said, "sealed" in said) == (0, True, False), said
    assert sealed.install(1, "--dry-run")[1].startswith("worker1: nothing to do\n")
    assert list_tree(sealed.site.root) == before
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
def test_packages_only_needs_no_code(make_sealed: Callable[..., SealedSite]) -> None:
    code, said = make_sealed().install(1, "--packages-only")
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    first_cases(
        ["openssl enc", "cp", "mv", "tar -xf", "openssl dgst", "find", "rm -f", "xargs"], 4
    ),
)
def test_a_killed_run_leaves_no_secret_after_the_next_one(
    make_sealed: Callable[..., SealedSite], tmp_path: Path, moment: str
) -> None:
    sealed = make_sealed()
    program, _, arguments = moment.partition(" ")
    real = shutil.which(program, path="/usr/bin:/bin")
    opened = sealed.run / "bundler-unsealed.*"
    write_program(
        tmp_path / "killers" / program,
        f'case "$* " in *"{arguments}"*) for each in {opened}; do\n'
        f"    [ ! -d $each ] || {{ stat -c %a $each >{tmp_path}/mode\n"
        "    each=${each%.*}; kill -KILL ${each##*.}; exit 1; }\n"
        f'done ;; esac\nexec {real} "$@"\n',
    )
    path = f"{tmp_path}/killers:{sealed.site.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    done = sealed.site.install(1, "--unseal-file", str(sealed.code_file), PATH=path)
    assert (done.returncode, (tmp_path / "mode").read_text()) == (-9, "700\n"), done.stderr
    assert len(list(sealed.run.iterdir())) == 1
    assert sealed.install(1, "--dry-run")[0] in {0, REFUSED}  # any run cleans up
    assert list(sealed.run.iterdir()) == []
    code, said = sealed.open(1)
    assert code == 0, said
    assert (sealed.site.root / KEY).read_text() == "token: secret-1\n"
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
def test_uninstall_removes_what_a_killed_run_left(make_sealed: Callable[..., SealedSite]) -> None:
    sealed = make_sealed()
    assert sealed.open(1)[0] == 0
    (sealed.run / "bundler-unsealed.999999.1/files").mkdir(parents=True)
    done = sealed.site.host.uninstall()
    assert done.returncode == 0, done.stderr
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
def test_a_run_leaves_the_secrets_of_another_running_one(
    make_sealed: Callable[..., SealedSite],
) -> None:
    sealed = make_sealed()
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    other = sealed.run / f"bundler-unsealed.{os.getpid()}.{start}"
    other.mkdir()
    assert sealed.open(1)[0] == 0
    assert list(sealed.run.iterdir()) == [other]


@pytest.mark.slow
def test_too_little_memory_for_secrets_is_refused(make_sealed: Callable[..., SealedSite]) -> None:
    sealed = make_sealed()
    sealed.site.host.program("df", "printf 'x\\nx 9 9 7 9 /run\\n'")
    code, said = sealed.open(1, "--skip-preflight", "space")
    assert (code, "/run has 7 KiB free, and 256 are needed" in said) == (REFUSED, True), said
    assert list(sealed.run.iterdir()) == []


@pytest.mark.slow
def test_a_signed_sealed_bundle_becomes_a_signed_generation(
    make_sealed: Callable[..., SealedSite], tmp_path: Path
) -> None:
    generate_key(tmp_path / "ours.key")
    generate_key(tmp_path / "theirs.key")
    trust = ("--trust", str(tmp_path / "ours.pub"))
    sealed = make_sealed(sign_with=tmp_path / "ours.key")
    code, said = sealed.open(1, "--trust", str(tmp_path / "theirs.pub"))
    assert (code, "no key that this host trusts signed it" in said) == (3, True), said
    code, said = sealed.open(1, *trust)
    assert code == 0, said
    generation = sealed.site.store / "generations/1/install.sh"
    done = sealed.site.run(generation, *trust)
    assert (done.returncode, done.stdout) == (0, "worker1: nothing to do\n"), done.stderr
    manifest = sealed.site.bundles[0] / "MANIFEST"
    manifest.write_text(manifest.read_text().replace("# seal ", "# seal 0", 1))
    assert sealed.open(1, *trust)[0] == 3


@pytest.mark.slow
def test_plain_secrets_are_only_below_directories_of_root(
    make_sealed: Callable[..., SealedSite], tmp_path: Path
) -> None:
    """While install.sh runs, no plain secret can be reached by another user."""
    sealed = make_sealed()
    check = tmp_path / "check"
    write_program(
        check, f"grep -rlF secret-1 {sealed.site.host.directory} {tmp_path}/tmp >>{tmp_path}/seen\n"
    )
    for name in ("mv", "sync"):
        real = shutil.which(name, path="/usr/bin:/bin")
        write_program(tmp_path / "watchers" / name, f'{check}\nexec {real} "$@"\n')
    (tmp_path / "tmp").mkdir()
    path = f"{tmp_path}/watchers:{sealed.site.host.directory}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    done = sealed.site.install(
        1, "--unseal-file", str(sealed.code_file), PATH=path, TMPDIR=str(tmp_path / "tmp")
    )
    assert done.returncode == 0, done.stderr
    seen = {Path(line) for line in (tmp_path / "seen").read_text().splitlines()}
    assert seen
    for file in seen:
        if file.exists():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    places = {file.relative_to(sealed.site.host.directory).parts[:2] for file in seen}
    assert places <= {("live", "run"), ("root", "var"), ("root", "etc")}
