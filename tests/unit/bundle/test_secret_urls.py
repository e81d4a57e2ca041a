"""Passwords and signed queries of URLs, and places on the builder: in no output."""

import base64
import http.server
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from support.command import run_bundler
from support.small_builds import SmallSite, make_site

from bundler.cluster.inputs import Packages
from bundler.sources.lock import LockEntry
from bundler.sources.mirrors import Mirror, list_sources
from bundler.sources.packages.locked import to_file
from bundler.urls import hide_places, hide_secrets, show_url

PASSWORD, QUERY, PLACE = "hunter2222", "X-Amz-Signature=sw0rdfish", "a-place-on-the-builder"
SECRETS = (PASSWORD, base64.b64encode(f"alice:{PASSWORD}".encode()).decode(), "sw0rdfish")


@dataclass
class FileServer:
    """Serves files of a directory: /locked/ with a password, /signed/ with a query."""

    directory: Path
    server: http.server.ThreadingHTTPServer
    seen: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    directory = tmp_path / PLACE / "mirror/upstream.example"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            found.seen.append(parts.path)
            _, kind, name = parts.path.split("/", 2)
            right = {
                "locked": self.headers.get("Authorization") == f"Basic {SECRETS[1]}",
                "signed": parts.query == QUERY,
            }[kind]
            path = directory / name
            self.send_response(403 if not right else 200 if path.is_file() else 404)
            content = path.read_bytes() if right and path.is_file() else b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    found = FileServer(directory, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def site(tmp_path: Path, server: FileServer) -> SmallSite:
    """Its files come from URLs with a password, with a signed query, and from this machine."""
    made = make_site(tmp_path / PLACE)
    pins = json.loads((made.directory / "pins.yaml").read_text())
    forms = (
        "http://alice:{password}@{host}/locked/{name}", "http://{host}/signed/{name}?{query}",
        "file://{directory}/{name}",
    )  # fmt: skip
    for index, pin in enumerate(pins["artifacts"].values()):
        pin["url"] = forms[index % 3].format(
            password=PASSWORD, query=QUERY, host=server.host, directory=server.directory,
            name=pin["url"].removeprefix("https://upstream.example/"),
        )  # fmt: skip
    assert index >= 3
    (made.directory / "pins.yaml").write_text(json.dumps(pins))
    return made


def bundler(site: SmallSite, command: str, *more: str) -> str:
    """What the command prints. There is no mirror."""
    there = ("-c", "cluster.yaml", "--pins", "pins.yaml", "--cache", "cache")
    done = run_bundler([*command.split(), *there, *more], cwd=site.directory, text=True)
    assert done.returncode == 0, done.stderr
    return f"{done.stdout}{done.stderr}"


def find_in(text: str, words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word in text]


@pytest.mark.slow
def test_no_output_has_a_password_a_query_or_a_place_of_the_builder(
    site: SmallSite, server: FileServer, tmp_path: Path
) -> None:
    said = bundler(site, "build --dry-run") + bundler(site, "lock") + bundler(site, "lock")
    lock = site.directory / "cluster.lock.yaml"
    assert find_in(lock.read_text(), SECRETS) == []
    said += bundler(site, "build", "-o", "dist") + bundler(site, "fetch")
    for command in (["export", "../cache.tar"], ["list"]):
        done = run_bundler(["cache", *command, "--cache", "cache"], cwd=site.directory, text=True)
        said += f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, said
    assert find_in(said, SECRETS) == []

    # what others get: bundles with all their files, the runbook, the cache
    others = tmp_path / "others"
    others.mkdir()
    for path in sorted((site.directory / "dist").iterdir()):
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                archive.extractall(others, filter="data")
        else:
            (others / path.name).write_bytes(path.read_bytes())
    (others / "cache.tar").write_bytes((tmp_path / "cache.tar").read_bytes())
    for word in (*SECRETS, PLACE, str(tmp_path)):
        done = subprocess.run(
            ["grep", "-rlF", word, others], capture_output=True, text=True, check=False
        )
        assert done.stdout == "", word
    for node in ("one", "two"):
        for document in ("provenance.intoto.json", "sbom.cdx.json"):
            text = (others / f"small-{node}" / document).read_text()
            assert "file:" not in text
            assert server.host in text


@pytest.mark.slow
def test_a_build_from_the_lock_uses_password_and_query_of_cluster_yaml(
    site: SmallSite, server: FileServer
) -> None:
    bundler(site, "lock")
    subprocess.run(["rm", "-rf", site.directory / "cache"], check=True)
    server.seen.clear()
    bundler(site, "build", "-o", "dist")
    assert {path.split("/")[1] for path in server.seen} == {"locked", "signed"}


def test_a_lock_that_has_a_password_is_written_again_without_it(site: SmallSite) -> None:
    bundler(site, "lock")
    lock = site.directory / "cluster.lock.yaml"
    clean = lock.read_text()
    assert f"@{'127.0.0.1'}" not in clean
    lock.write_text(clean.replace("http://127", f"http://alice:{PASSWORD}@127", 1))
    bundler(site, "build --dry-run")
    bundler(site, "lock")
    assert lock.read_text() == clean


@pytest.mark.slow
def test_a_new_query_is_no_drift(site: SmallSite) -> None:
    """A signed URL ends after some time, and the next one has another signature."""
    bundler(site, "lock")
    pins = site.directory / "pins.yaml"
    pins.write_text(pins.read_text().replace("sw0rdfish", "another"))
    bundler(site, "build --dry-run")


@pytest.mark.parametrize(
    "url", [f"ftp://alice:{PASSWORD}@h.example/x", f"https://alice:{PASSWORD}@[h/x?{QUERY}"]
)
def test_an_error_about_a_url_does_not_show_its_password(site: SmallSite, url: str) -> None:
    description = site.directory / "cluster.yaml"
    pin = yaml.safe_dump({"artifacts": {"etcd": {"url": url}}})
    description.write_text(f"{description.read_text()}{pin}")
    done = run_bundler(["check", "-c", description], text=True)
    assert done.returncode == 2
    assert "artifacts.etcd.url" in done.stderr
    assert find_in(done.stdout + done.stderr, SECRETS) == []


def test_a_mirror_gets_no_password_of_upstream() -> None:
    url = f"https://alice:{PASSWORD}@h.example/a/b"
    every, own = Mirror("https://mirror.example"), Mirror("https://own.example", "h.example")
    assert list(list_sources(url, (every, own), offline=False)) == [
        "https://own.example/a/b", "https://mirror.example/h.example/a/b", url,
    ]  # fmt: skip


def test_a_locked_package_is_fetched_with_the_password_of_its_mirror() -> None:
    packages = Packages(
        os="debian-12",
        mirror=(
            "http://other.example/debian",
            f"https://alice:{PASSWORD}@deb.example/debian bookworm",
        ),
    )
    there = {
        "kind": "package", "name": "socat", "version": "1", "arch": "amd64", "size": 1,
        "digest": f"sha256:{'0' * 64}", "origin": "upstream-signature", "evidence": "debian-12: x",
        "locked": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    entry = LockEntry(**there, url=f"https://alice:{PASSWORD}@deb.example/debian/pool/s.deb")
    assert entry.url == "https://deb.example/debian/pool/s.deb"
    assert to_file(entry, packages).url == f"https://alice:{PASSWORD}@deb.example/debian/pool/s.deb"
    other = LockEntry(**there, url="http://deb.example/debian/pool/s.deb")
    assert to_file(other, packages).url == other.url


URLS = [
    ("https://h.example/x", "https://h.example/x"),
    (f"https://alice:{PASSWORD}@h.example:1/x?a=b#c", "https://h.example:1/x"),
    (f"http://{PASSWORD}@h.example/x?{QUERY}", "http://h.example/x"),
    ("file:///srv/x?y", "file:///srv/x?y"),
    (f"https://alice:{PASSWORD}@[bad/x?y", "https://[bad/x"),
]


@pytest.mark.parametrize(("url", "shown"), URLS)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert show_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"from https://a:{PASSWORD}@h/x?{QUERY}: HTTP 403", "from https://h/x?[masked] HTTP 403"),
        (f"'http://a:{PASSWORD}@h/x', next", "'http://h/x', next"),
        ("see https://h.example/x#part, or a@b.example", "see https://h.example/x#part, or a@b.example"),
        ("is it https://h.example/? Yes", "is it https://h.example/? Yes"),
    ],
)  # fmt: skip
def test_messages_show_urls_without_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_evidence_names_files_without_their_place() -> None:
    assert hide_places("openpgp 12AB: file:///home/me/etcd.asc") == "openpgp 12AB: etcd.asc"
    assert (
        hide_places("openpgp 12AB: https://a:b@h/etcd.asc?c")
        == "openpgp 12AB: https://h/etcd.asc?[masked]"
    )
