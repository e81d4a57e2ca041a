"""Files of a site in whole builds: secret ones only where they belong, in every kind of bundle."""

import tarfile
from pathlib import Path

import pytest
from support.command import run_bundler
from support.small_builds import SmallSite, make_site

from bundler.bundle.inspect import inspect
from bundler.bundle.layout import Media

SECRET, OPEN = "rootfs/etc/site/agent.key", "rootfs/etc/site/agent.conf"
TEXT = b"a-secret-of-the-site"
FILES = """\
  - name: two
    address: 192.0.2.2
    roles: [worker]
    files:
      /etc/site/agent.conf: {content: "interval=60", restart: [agent.service]}
      /etc/site/agent.key: {source: agent.key, secret: true}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SmallSite:
    made = make_site(tmp_path_factory.mktemp("site-files"))
    (made.directory / "agent.key").write_bytes(TEXT)
    (made.directory / "agent.key").chmod(0o600)
    description = made.directory / "cluster.yaml"
    text = description.read_text()
    old = "  - {name: two, address: 192.0.2.2, roles: [worker]}\n"
    assert old in text
    description.write_text(text.replace(old, FILES))
    return made


def read_all(directory: Path) -> bytes:
    """The bytes of every member of every tarball, and of every other file."""
    content = b""
    for path in sorted(directory.iterdir()):
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    content += file.read() if file else b""
        elif path.is_file():
            content += path.read_bytes()
    return content


def test_a_secret_is_in_the_bundle_of_its_host_only(site: SmallSite) -> None:
    dist = site.build("dist")
    two, three = (inspect(dist / f"small-{name}.tar.gz") for name in ("two", "three"))
    modes = {entry.path: entry.mode for entry in two.entries}
    assert (modes[SECRET], modes[OPEN]) == (0o600, 0o644)
    assert two.faults == ()
    assert not {SECRET, OPEN} & {entry.path for entry in three.entries}
    assert read_all(dist).count(TEXT) == 1
    shown = run_bundler(["inspect", dist / "small-two.tar.gz", "--sbom"], capture_output=True)
    assert b"/etc/site/agent.key" in shown.stdout
    assert TEXT not in shown.stdout + shown.stderr


def test_the_same_description_gives_the_same_bundles(site: SmallSite) -> None:
    first, second = site.build("a"), site.build("b")
    name = "small-two.tar.gz"
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_bundle_without_secrets_names_the_file_that_it_leaves_out(site: SmallSite) -> None:
    public = site.build("public", Media(public_only=True))
    report = inspect(public / "small-two.public.tar.gz")
    assert SECRET in report.parsed.absent
    assert OPEN in {entry.path for entry in report.entries}
    assert TEXT not in read_all(public)


def test_a_sealed_bundle_seals_it(site: SmallSite) -> None:
    sealed = site.build("sealed", Media(seal=True))
    report = inspect(sealed / "small-two.tar.gz")
    assert report.parsed.seal is not None
    assert SECRET in report.parsed.seal.tags
    assert TEXT not in read_all(sealed)
