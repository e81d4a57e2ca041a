"""Mirrors of one host, redirects, TLS with private CAs, proxies."""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from support.ca import CertificateAuthority
from support.descriptions import write_description, write_upstream
from support.misbehaving_server import CONTENT, PATH, Server, make_artifact, running
from typer.testing import CliRunner, Result

from bundler.cache.store import Cache
from bundler.cli.app import app
from bundler.errors import ArtifactError, ConfigError
from bundler.sources.fetch import FetchOptions, ensure_artifact
from bundler.sources.mirrors import (
    Mirror,
    list_sources,
    parse_mirror,
)
from bundler.sources.transport import MAX_REDIRECTS, make_session
from bundler.urls import show_url

HERE: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as web:
        yield web


@pytest.fixture
def other() -> Iterator[Server]:
    with running() as web:
        yield web


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture
def secure(ca: CertificateAuthority) -> Iterator[Server]:
    with running(ca.issue("good", HERE)) as web:
        yield web


@pytest.fixture
def options(tmp_path: Path) -> FetchOptions:
    return FetchOptions(cache=Cache(tmp_path / "cache"), backoff=0.01)


def refusal(server: Server, options: FetchOptions, path: str = PATH) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        ensure_artifact(make_artifact(server.url + path), options)
    return caught.value


# mirrors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://m.example/a", Mirror("https://m.example/a")),
        ("/srv/mirror", Mirror("/srv/mirror")),
        ("dl.k8s.io=https://m.example/k8s", Mirror("https://m.example/k8s", "dl.k8s.io")),
        ("DL.k8s.io:8443=dir", Mirror("dir", "dl.k8s.io:8443")),
        ("./a=b", Mirror("./a=b")),
        ("https://m.example/?a=b", Mirror("https://m.example/?a=b")),
    ],
)
def test_a_mirror_is_for_one_host_or_for_all(text: str, expected: Mirror) -> None:
    assert parse_mirror(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dl.k8s.io=",
        "ftp://m.example",
        "a.example=s3://bucket",
        "https:///path",
        "https://[bad",
        "a=http://b:c",
    ],
)
def test_an_invalid_mirror_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--mirror"):
        parse_mirror(text)


def test_the_mirrors_of_a_host_come_first_and_those_of_other_hosts_are_not_used() -> None:
    mirrors = [
        parse_mirror(text)
        for text in ("https://all.example/", "b.example=/b", "a.example=https://own.example/x")
    ]
    assert list(list_sources("https://a.example/v1/f%2B.tgz", mirrors, offline=False)) == [
        "https://own.example/x/v1/f%2B.tgz",
        "https://all.example/a.example/v1/f%2B.tgz",
        "https://a.example/v1/f%2B.tgz",
    ]
    assert list(list_sources("https://b.example/v1/f%2B.tgz", mirrors, offline=True)) == [
        "/b/v1/f+.tgz"
    ]


def test_a_password_or_a_signed_query_is_never_shown() -> None:
    assert show_url("https://me:secret@a.example:1/x?Signature=y#z") == "https://a.example:1/x"


def test_an_invalid_url_is_shown_without_its_password() -> None:
    assert show_url("https://me:secret@[bad/x?Signature=y") == "https://[bad/x"


@pytest.mark.parametrize("url", ["https://[bad", "http://a:b"])
def test_an_invalid_registry_mirror_is_refused(url: str) -> None:
    result = CliRunner().invoke(app, ["fetch", "--registry-mirror", f"docker.io={url}"])
    assert isinstance(result.exception, ConfigError)
    assert "--registry-mirror docker.io" in result.exception.message


def test_a_failing_mirror_is_reported_and_the_next_source_is_tried(
    server: Server, other: Server, options: FetchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    server.statuses = [403]
    mirror = parse_mirror(server.url.replace("//", "//me:secret@"))
    artifact = make_artifact(other.url + PATH)
    assert ensure_artifact(artifact, replace(options, mirrors=(mirror,))).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert f"{server.url}/127.0.0.1:{other.port}{PATH}: HTTP 403 Forbidden; trying the next" in said
    assert "secret" not in said


def test_a_password_from_netrc_is_not_sent_to_the_target_of_a_redirect(
    server: Server, other: Server, options: FetchOptions, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.redirects = {PATH: other.url + PATH}
    artifact = make_artifact(server.url.replace("127.0.0.1", "localhost") + PATH)
    assert ensure_artifact(artifact, options).read_bytes() == CONTENT
    assert [said is not None for said in server.authorizations] == [True]
    assert other.authorizations == [None]


# redirects


@pytest.mark.slow
def test_a_redirect_to_another_host_is_followed_and_logged(
    server: Server, other: Server, options: FetchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    server.redirects = {PATH: f"{other.url}{PATH}?Signature=secret"}
    other.redirects = {f"{PATH}?Signature=secret": PATH}  # relative: on the same host
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert f"127.0.0.1:{server.port} redirects to 127.0.0.1:{other.port}" in said
    assert "secret" not in said


@pytest.mark.slow
def test_a_download_is_resumed_through_a_redirect(
    server: Server, other: Server, options: FetchOptions
) -> None:
    server.redirects = {PATH: other.url + PATH}
    other.cut_after = [2_000_000]
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT
    assert [bool(wanted) for _, wanted in other.requests] == [False, True]


def test_a_redirect_from_https_to_http_is_refused(
    secure: Server, server: Server, options: FetchOptions, ca: CertificateAuthority
) -> None:
    secure.redirects = {PATH: server.url + PATH}
    found = refusal(secure, replace(options, session=make_session(ca.file)))
    assert f"redirects from https to {server.url}{PATH}: plain http" in found.message
    assert server.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "ftp://a.example/x", "file:///etc/passwd", "http://:80/x", "http://[::1/x", "http://a:b/",
        "http://a.example/\xff", "http://a.example/%00",
    ],
)  # fmt: skip
def test_a_redirect_to_an_invalid_address_is_refused(
    server: Server, options: FetchOptions, target: str
) -> None:
    server.redirects = {PATH: target}
    assert "which is not a web address" in refusal(server, options).message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Content-Length", "9" * 5000, "invalid answer"),
        ("Content-Length", "9" * 4000, "it has more than"),
    ],
)
def test_an_invalid_header_is_refused(
    server: Server, options: FetchOptions, name: str, value: str, expected: str
) -> None:
    server.headers = {name: value}
    server.states_length = False
    assert expected in refusal(server, options).message


@pytest.mark.parametrize(
    ("value", "expected"),
    [("9" * 5000, "HTTP 503"), ("9" * 4000, "asks to wait"), ("Fri, 99 Dec 99999", "HTTP 503")],
)
def test_an_invalid_retry_after_is_refused(
    server: Server, options: FetchOptions, value: str, expected: str
) -> None:
    server.statuses = [503] * 4
    server.headers = {"Retry-After": value}
    assert expected in refusal(server, options).message


def test_a_missing_file_of_public_cas_is_reported(
    secure: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    artifact = make_artifact(secure.url + PATH)
    with pytest.raises(ConfigError, match="/nowhere/ca.pem") as caught:
        ensure_artifact(artifact, options)
    assert "REQUESTS_CA_BUNDLE" in str(caught.value.hint)


def test_an_unreadable_file_is_reported_and_the_next_source_is_tried(
    server: Server, options: FetchOptions
) -> None:
    found = refusal_of("file:///proc/self/mem", options)  # reading it fails
    assert "/proc/self/mem: cannot be read: Input/output error" in found.message
    mirrors = (Mirror("/m", "unused.example"),)
    assert "not a path" in refusal_of("file:///a%00b", replace(options, mirrors=mirrors)).message


def refusal_of(url: str, options: FetchOptions) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        ensure_artifact(make_artifact(url), options)
    return caught.value


def test_a_redirect_loop_is_reported(server: Server, options: FetchOptions) -> None:
    server.redirects = {PATH: "/a", "/a": "/b", "/b": "/a"}
    assert (
        f"redirects in a circle: {server.url}/a → {server.url}/b → {server.url}/a"
        in refusal(server, options).message
    )
    assert len(server.requests) == 3


def test_too_many_redirects_are_refused(server: Server, options: FetchOptions) -> None:
    server.redirects = {f"/{i}": f"/{i + 1}" for i in range(99)}
    found = refusal(server, options, "/0")
    assert f"redirects more than {MAX_REDIRECTS} times" in found.message
    assert len(server.requests) == MAX_REDIRECTS + 1


def test_an_error_after_a_redirect_names_its_target(
    server: Server, other: Server, options: FetchOptions
) -> None:
    server.redirects = {PATH: f"{other.url}/gone?Signature=secret"}
    found = refusal(server, options)
    assert f"{server.url}{PATH}: redirected to {other.url}/gone: HTTP 404" in found.message
    assert "secret" not in found.message


# TLS


def test_an_unknown_ca_is_reported_with_the_fix(secure: Server, options: FetchOptions) -> None:
    found = refusal(secure, options)
    assert "TLS failed" in found.message
    assert "--ca-file" in (found.hint or "")
    for offered in ("insecure", "skip", "ignore", "disable"):
        assert offered not in f"{found.message} {found.hint}".lower()
    assert secure.requests == []


def test_a_server_is_trusted_with_ca_file(
    secure: Server, options: FetchOptions, ca: CertificateAuthority
) -> None:
    trusting = replace(options, session=make_session(ca.file))
    artifact = make_artifact(secure.url + PATH)
    assert ensure_artifact(artifact, trusting).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "days", "names"),
    [("expired", -1, HERE), ("elsewhere", 1, [x509.DNSName("elsewhere.example")])],
)
def test_an_invalid_certificate_is_refused_even_with_ca_file(
    options: FetchOptions,
    ca: CertificateAuthority,
    name: str,
    days: int,
    names: list[x509.GeneralName],
) -> None:
    with running(ca.issue(name, names, days=days)) as server:
        found = refusal(server, replace(options, session=make_session(ca.file)))
    assert "TLS failed" in found.message
    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no PEM", "no certificate in PEM form"),
        (b"", "no certificate in PEM form"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate in"),
        (None, "No such file"),
    ],
)
def test_an_invalid_ca_file_is_reported(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        make_session(file)
    assert str(file) in caught.value.message


# proxies


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_plain_http_goes_through_the_proxy_of_the_environment(
    options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://upstream.invalid" + PATH
    with running(is_proxy=True) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert ensure_artifact(make_artifact(url), options).read_bytes() == CONTENT
    assert proxy.requests == [(url, None)]


def test_https_goes_through_a_tunnel_and_is_verified_end_to_end(
    secure: Server,
    options: FetchOptions,
    ca: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = make_artifact(secure.url + PATH)
    with running(is_proxy=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert "TLS failed" in refusal(secure, options).message
        trusting = replace(options, session=make_session(ca.file))
        assert ensure_artifact(artifact, trusting).read_bytes() == CONTENT
    assert {path for path, _ in proxy.requests} == {f"127.0.0.1:{secure.port}"}


@pytest.mark.parametrize("exempt", ["127.0.0.1", "127.0.0.0/8", "*"])
def test_hosts_in_no_proxy_are_reached_directly(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert ensure_artifact(make_artifact(server.url + PATH), options).read_bytes() == CONTENT


def test_a_failing_proxy_is_reported_without_its_password(
    server: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = closed_port()
    monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@127.0.0.1:{port}")
    found = refusal(server, options)
    assert f"the proxy http://127.0.0.1:{port} failed" in found.message
    assert "HTTPS_PROXY" in (found.hint or "")
    assert "secret" not in f"{found.message} {found.hint}"


def test_a_proxy_that_requires_a_password_is_reported(
    secure: Server, options: FetchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(is_proxy=True) as proxy:
        proxy.statuses = [407] * 9
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        found = refusal(secure, options)
    assert f"the proxy {proxy.url} failed" in found.message
    assert "407" in found.message


# the command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["fetch", "lock", "build", "render"])
@pytest.mark.parametrize(
    "options",
    [
        ("--mirror", "ftp://mirror.example"),
        ("--ca-file", "/nowhere/ca.pem"),
        ("--jobs", "0"),
    ],
    ids=["mirror", "ca-file", "jobs"],
)
def test_every_command_that_downloads_has_the_same_options_and_checks_them(
    tmp_path: Path, command: str, options: tuple[str, str]
) -> None:
    output = ("-o", tmp_path / "out") if command in {"build", "render"} else ()
    done = run(command, "-c", write_description(tmp_path), *output, *options)
    said = f"{done.output} {getattr(done.exception, 'message', '')}"
    assert options[0] in said
    assert isinstance(done.exception, ConfigError) or done.exit_code == 2


def test_fetch_uses_the_mirror_of_each_host(
    tmp_path: Path, secure: Server, ca: CertificateAuthority
) -> None:
    description = write_description(tmp_path)
    pins = write_upstream(tmp_path, description)
    held = tmp_path / "mirror" / "upstream.example"
    done = run(
        "fetch", "-q", "-c", description, "--pins", pins, "--cache", tmp_path / "cache",
        "--mirror", f"upstream.example={held}", "--ca-file", ca.file, "--jobs", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    files = [path for path in held.rglob("*") if path.is_file()]
    assert len(done.stdout.splitlines()) == len(files) > 3
