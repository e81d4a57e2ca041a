"""Images from registries: digests, architectures, errors, tokens and mirrors."""

import dataclasses
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.registries import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    MadeImage,
    Registry,
    make_layer,
    run_registry,
    sha256,
)

from bundler.cache.store import Cache
from bundler.cluster.loader import load_cluster
from bundler.cluster.plan import make_plan
from bundler.errors import ArtifactError, ConfigError
from bundler.formats.image_references import parse_reference
from bundler.sources.fetch import FetchOptions
from bundler.sources.images.credentials import Login, find_login, login_file, read_logins
from bundler.sources.images.needed import Images
from bundler.sources.images.pull import (
    Pulled,
    Puller,
    WantedImage,
    list_cached,
)
from bundler.sources.images.registry import MAX_TOKEN, RegistryOptions, Repository
from bundler.sources.images.resolve import gather_images
from bundler.sources.retries import SourceError


class Clock(threading.Event):
    """Does not wait; records how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return False


BASE = make_layer("base", b"shared" * 50_000)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with run_registry() as web:
        yield web


@pytest.fixture
def options(tmp_path: Path) -> FetchOptions:
    return FetchOptions(cache=Cache(tmp_path / "cache"), backoff=0.01)


def make_image(name: str = "app", arch: str = "amd64", media_type: str = OCI_MANIFEST) -> MadeImage:
    top = make_layer(name, f"{name} {arch}".encode() * 9000)
    return MadeImage([BASE, top], arch, media_type)


def pull(
    registry: Registry,
    options: FetchOptions,
    ref: str = "team/app:1.0",
    arch: str = "amd64",
    **changes: object,
) -> Pulled:
    reference = parse_reference(f"{registry.host}/{ref}" if "/" in ref else ref)
    how = RegistryOptions(insecure=frozenset({registry.host}), **changes)
    wanted = WantedImage(reference=reference, arch=arch, digest=reference.digest)
    (pulled,) = Puller(options, how).pull([wanted])
    return pulled


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST], ids=["oci", "docker"])
def test_an_image_is_pulled_completely_and_then_found_in_the_cache(
    registry: Registry, options: FetchOptions, media_type: str
) -> None:
    image = make_image(media_type=media_type)
    registry.put("team/app", "1.0", image)
    pulled = pull(registry, options)
    assert pulled.image.image_id == image.image_id
    assert pulled.image.manifest.content == image.manifest
    assert [layer.place.read() for layer in pulled.image.layers] == image.blobs
    assert {f"sha256:{file.digest}" for file in pulled.files} == set(image.contents)
    registry.requests.clear()
    offline = dataclasses.replace(options, offline=True)
    assert pull(registry, offline).image == pulled.image
    assert registry.requests == []


@pytest.mark.parametrize("index_type", ["", DOCKER_LIST], ids=["oci", "docker"])
def test_each_node_gets_the_image_for_its_architecture(
    registry: Registry, options: FetchOptions, index_type: str
) -> None:
    images = {arch: make_image(arch=arch) for arch in ("amd64", "arm64")}
    index = registry.put("team/app", "1.0", *images.values(), index_type=index_type)
    for arch, image in images.items():
        pulled = pull(registry, options, arch=arch)
        assert (pulled.image.image_id, pulled.served) == (image.image_id, index)
    # shared files are downloaded once
    assert len(registry.paths(f"/blobs/{sha256(images['amd64'].blobs[0])}")) == 1


@pytest.mark.parametrize("is_index", [True, False])
def test_a_missing_architecture_is_reported_with_those_available(
    registry: Registry, options: FetchOptions, is_index: bool
) -> None:
    registry.put("team/app", "1.0", make_image(), index_type=DOCKER_LIST if is_index else "")
    with pytest.raises(ArtifactError, match=r"amd64") as caught:
        pull(registry, options, arch="arm64")
    assert "arm64" in caught.value.message
    assert "`arch:`" in (caught.value.hint or "")


def test_an_image_is_requested_by_the_digest_in_its_reference(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    digest = registry.put("team/app", "1.0", image)
    registry.put("team/app", "1.0", make_image("newer"))
    assert pull(registry, options, f"team/app:1.0@{digest}").image.image_id == image.image_id
    assert registry.paths("manifests") == [f"/v2/team/app/manifests/{digest}"]


def test_a_missing_tag_is_reported_with_similar_tags(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0.1", make_image())
    with pytest.raises(ArtifactError, match="HTTP 404") as caught:
        pull(registry, options)
    assert "similar tags: 1.0.1" in (caught.value.hint or "")
    assert len(registry.paths("manifests")) == 1


def test_a_failing_registry_is_retried(registry: Registry, options: FetchOptions) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.faults = [("manifests", 500, {}), ("manifests", 503, {}), ("blobs", 502, {})]
    assert pull(registry, options).image.image_id == image.image_id
    assert len(registry.paths("manifests/1.0")) == 3


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0.01), ("-1", 0.01)],
)
@pytest.mark.slow
def test_bundler_waits_as_long_as_a_busy_registry_asks(
    registry: Registry, options: FetchOptions, retry_after: str, waited: float
) -> None:
    registry.put("team/app", "1.0", make_image())
    clock = Clock()
    registry.faults = [("manifests", 429, {"Retry-After": retry_after})]
    pull(registry, dataclasses.replace(options, stop=clock))
    assert clock.waits == [waited]


def test_a_registry_that_asks_to_wait_an_hour_is_not_retried(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.faults = [("manifests", 429, {"Retry-After": "3600"})]
    with pytest.raises(ArtifactError, match="asks to wait 3600 s"):
        pull(registry, options)
    assert len(registry.paths("manifests")) == 1


@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.slow
def test_a_permanent_registry_error_is_not_retried(
    registry: Registry, options: FetchOptions, status: int
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    layer = sha256(image.blobs[1])
    registry.faults = [(layer, status, {})]
    with pytest.raises(ArtifactError, match=f"layer 2 .*no source has the file:\n.*HTTP {status}"):
        pull(registry, options)
    assert len(registry.paths(layer)) == 1


def test_a_blob_with_a_wrong_digest_is_quarantined_and_reported(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    wrong = bytearray(image.blobs[1])
    wrong[-1] ^= 1
    registry.blobs[sha256(image.blobs[1])] = bytes(wrong)
    with pytest.raises(ArtifactError, match=r"team/app:1.0 layer 2 .*does not match its pin"):
        pull(registry, options)
    assert not options.cache.has_blob("sha256", sha256(image.blobs[1]).removeprefix("sha256:"))
    registry.blobs |= image.contents
    assert pull(registry, options).image.image_id == image.image_id


def test_a_manifest_with_a_wrong_digest_is_refused(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    digest = registry.put("team/app", "1.0", image)
    registry.manifests[f"team/app/{digest}"] = (OCI_MANIFEST, make_image("evil").manifest)
    with pytest.raises(ArtifactError, match="does not match its digest"):
        pull(registry, options, f"team/app:1.0@{digest}")


def test_an_incomplete_layer_is_resumed(registry: Registry, options: FetchOptions) -> None:
    incompressible = b"".join(sha256(str(n).encode()).encode() for n in range(20_000))
    image = MadeImage([make_layer("big", incompressible)])
    layer = image.blobs[0]
    registry.put("team/app", "1.0", image)
    registry.cut = {sha256(layer): len(layer) - 1000}
    assert pull(registry, options).image.image_id == image.image_id
    assert len(registry.paths(sha256(layer))) == 2
    assert 0 < max(registry.begins) < len(layer)


def test_documents_that_are_not_manifests_are_refused(
    registry: Registry, options: FetchOptions
) -> None:
    registry.manifests["team/app/1.0"] = ("text/html", b"<html>log in</html>")
    with pytest.raises(ArtifactError, match="served text/html, not an image manifest"):
        pull(registry, options)
    old = json.dumps({"schemaVersion": 1, "fsLayers": []}).encode()
    registry.manifests["team/app/1.0"] = (
        "application/vnd.docker.distribution.manifest.v1+json",
        old,
    )
    with pytest.raises(ArtifactError, match="not an image manifest of schema 2"):
        pull(registry, options)


def test_layers_that_no_runtime_unpacks_are_refused(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    image.manifest = image.manifest.replace(b"tar+gzip", b"tar+lz4")
    registry.put("team/app", "1.0", image)
    with pytest.raises(ArtifactError, match=r"tar\+lz4") as caught:
        pull(registry, options)
    assert "docker save" in (caught.value.hint or "")


def test_a_pulled_image_with_zstd_layers_needs_a_runtime_that_reads_them(
    registry: Registry, options: FetchOptions, tmp_path: Path
) -> None:
    image = make_image()
    image.manifest = image.manifest.replace(b"tar+gzip", b"tar+zstd")
    registry.put("team/app", "1.0", image)
    reference = parse_reference(f"{registry.host}/team/app:1.0")
    wanted = (WantedImage(reference=reference, arch="amd64", digest=None),)
    puller = Puller(options, RegistryOptions(insecure=frozenset({registry.host})))

    def gather(runtime: str) -> Images:
        description = tmp_path / "cluster.yaml"
        description.write_text(
            f"apiVersion: bundler/v1alpha1\nname: z\nkubernetes: {{version: 1.20.2}}\n"
            f"runtime: {{{runtime}}}\n"
            "nodes: [{name: a, address: 192.0.2.1, roles: [etcd, control-plane]}]\n"
        )
        return gather_images(make_plan(load_cluster(description).cluster), wanted, puller)

    with pytest.raises(ArtifactError, match=r"team/app:1.0 \(amd64\): .* with zstd, which docker"):
        gather("engine: docker")
    assert len(gather("engine: containerd, version: 1.6.20")) == 1


# tokens and logins


def test_a_token_is_requested_once_and_used_for_all_requests(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.wants_token = True
    assert pull(registry, options).image.image_id == image.image_id
    assert registry.paths("/token") == ["/token?service=here&scope=repository%3Ateam%2Fapp%3Apull"]


def test_a_token_may_arrive_in_pieces(registry: Registry, options: FetchOptions) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.wants_token, registry.token_pieces = True, (1, 7)
    assert pull(registry, options).image.image_id == image.image_id


def test_a_token_that_is_too_large_is_not_read_completely(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token, registry.token = True, "x" * (MAX_TOKEN + 1)
    with pytest.raises(ArtifactError, match="sent a document of more than 1 MiB"):
        pull(registry, options)


@pytest.mark.slow
def test_a_token_that_expires_during_a_pull_is_renewed(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.wants_token = True
    realm = f'Bearer realm="http://{registry.host}/token",service="here",scope="repository:x:pull"'
    registry.faults = [("blobs", 401, {"WWW-Authenticate": realm})]
    assert pull(registry, options).image.image_id == image.image_id
    assert len(registry.paths("/token")) == 2


@pytest.mark.parametrize("kind", ["token", "basic"])
def test_a_login_opens_private_registries_and_is_never_shown(
    registry: Registry, options: FetchOptions, kind: str
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.login = "me:hunter2"
    registry.wants_token, registry.wants_basic = kind == "token", kind == "basic"
    with pytest.raises(ArtifactError, match="HTTP 401") as caught:
        pull(registry, options)
    assert "log in with docker login" in (caught.value.hint or "")
    assert registry.paths("tags") == []
    wrong = {registry.host: Login(user="me", password="hunter3")}
    with pytest.raises(ArtifactError, match="HTTP 401") as caught:
        pull(registry, options, logins=lambda: wrong)
    assert "hunter3" not in f"{caught.value.message}{caught.value.hint}{wrong}"
    right = {registry.host: Login(user="me", password="hunter2")}
    assert pull(registry, options, logins=lambda: right).image.image_id == image.image_id


def test_an_invalid_token_is_reported_once(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token = True
    image = make_image("other")
    registry.put("team/other", "1.0", image)
    registry.faults = [("/token", 200, {})]
    with pytest.raises(ArtifactError, match="sent no valid token"):
        pull(registry, options)
    assert len(registry.paths("manifests")) == 1


@pytest.mark.parametrize("token", ["a\r\nX-Evil: b", "sn\N{SNOWMAN}w", "a b", ""])
def test_a_token_with_characters_that_no_header_can_have_is_refused_and_not_shown(
    registry: Registry, options: FetchOptions, token: str
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token, registry.token = True, token
    with pytest.raises(ArtifactError, match="sent no valid token") as caught:
        pull(registry, options)
    assert not token or token not in caught.value.message


@pytest.mark.parametrize("realm", ["http://[bad", "http://a:b/", "http:///token", "token"])
def test_a_realm_that_is_not_a_web_address_is_refused(
    registry: Registry, options: FetchOptions, realm: str
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token, registry.realm = True, realm
    with pytest.raises(ArtifactError, match="an invalid address|No scheme"):
        pull(registry, options)


NESTED = b"[" * 100_000


@pytest.mark.parametrize("what", ["/token", "/manifests/", "/tags/"])
def test_a_document_that_is_nested_too_deeply_is_refused(
    registry: Registry, options: FetchOptions, what: str
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token = what == "/token"
    registry.documents = {what: NESTED}
    ref = "team/app:1.1" if what == "/tags/" else "team/app:1.0"
    with pytest.raises(ArtifactError, match="sent no valid token|not an image manifest|HTTP 404"):
        pull(registry, options, ref)


def test_a_stopped_run_does_not_retry_a_registry(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.faults = [("manifests", 503, {})] * 4
    patient = dataclasses.replace(options, backoff=60)
    threading.Timer(0.3, patient.stop.set).start()
    with pytest.raises(ArtifactError, match="stopped"):
        pull(registry, patient)
    assert len(registry.paths("manifests")) == 1


def test_netrc_is_not_used_for_registries(
    registry: Registry, options: FetchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / "netrc").chmod(stat.S_IRUSR | stat.S_IWUSR)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    registry.put("team/app", "1.0", make_image())
    pull(registry, options)
    assert {authorization for _, authorization in registry.requests} == {""}


def test_logins_are_read_as_docker_login_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": {"auth": "bWU6aHVudGVyMg=="},
                    "registry.example:5000": {"username": "me", "password": "a:b"},
                    "kept.example": {},
                    "azure.example": {"auth": "MDAwOg==", "identitytoken": "long"},
                },
                "credsStore": "desktop",
            }
        )
    )
    assert read_logins(path) == {
        "registry-1.docker.io": Login(user="me", password="hunter2"),
        "registry.example:5000": Login(user="me", password="a:b"),
        "azure.example": Login(user="000", refresh_token="long"),
    }
    assert "hunter2" not in repr(read_logins(path))
    assert read_logins(tmp_path / "none") == {}
    for bad in ("[]", '{"auths": {"x": {"auth": "hunter2!"}}}', '{"auths": ["hunter2"]}'):
        path.write_text(bad)
        with pytest.raises(ConfigError, match="not a docker configuration file") as caught:
            read_logins(path)
        assert "hunter2" not in caught.value.message


def test_of_several_logins_at_one_host_the_longest_namespace_serves(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    keys = ["harbor.example/a", "harbor.example/b", "harbor.example/b/deep/", "https://own.example/v2/",
            "docker.io/team", "old.example/v1"]  # fmt: skip
    auths = {key: {"username": key, "password": "x"} for key in keys}
    path.write_text(json.dumps({"auths": auths | {"harbor.example/b/none": {}}}))
    logins = read_logins(path)

    def user(host: str, repository: str) -> str | None:
        found = find_login(logins, host, repository)
        return found.user if found else None

    assert user("harbor.example", "a/app") == "harbor.example/a"
    assert user("harbor.example", "b/app") == "harbor.example/b"
    assert user("harbor.example", "b/deep/app") == "harbor.example/b/deep/"
    assert user("harbor.example", "b/none/app") == "harbor.example/b"
    assert user("harbor.example", "ab/app") is None
    assert user("own.example", "any/app") == "https://own.example/v2/"
    assert user("old.example", "any/app") == "old.example/v1"
    assert user("registry-1.docker.io", "team/app") == "docker.io/team"
    assert user("registry-1.docker.io", "library/nginx") is None


@pytest.mark.slow
def test_each_of_two_namespaces_at_one_host_is_pulled_with_its_own_login(
    registry: Registry, options: FetchOptions
) -> None:
    logins = {f"{registry.host}/{team}": Login(user=team, password="x") for team in ("a", "b")}
    registry.wants_basic = True
    for team in ("a", "b"):
        registry.put(f"{team}/app", "1.0", make_image(team))
        registry.login = f"{team}:x"
        pull(registry, options, ref=f"{team}/app:1.0", logins=lambda: logins)
    registry.login = "b:x"
    with pytest.raises(ArtifactError, match="HTTP 401"):
        pull(registry, options, ref="c/app:1.0", logins=lambda: logins)


@pytest.mark.parametrize("path", ["/hub", "/v2/hub", "/v2/hub/"])
def test_a_mirror_below_a_path_is_reached_however_its_url_is_written(
    registry: Registry, options: FetchOptions, path: str
) -> None:
    image = make_image()
    registry.put("hub/library/app", "1.0", image)
    mirrors = {"docker.io": (f"http://{registry.host}{path}",)}
    logins = {f"{registry.host}/hub": Login(user="me", password="hunter2")}
    registry.login, registry.wants_basic = "me:hunter2", True
    pulled = pull(registry, options, ref="app:1.0", mirrors=mirrors, logins=lambda: logins)
    assert pulled.image.image_id == image.image_id


def test_logins_are_read_from_the_same_file_as_other_tools_use(tmp_path: Path) -> None:
    assert login_file({}, tmp_path) == tmp_path / ".docker/config.json"
    assert login_file({"DOCKER_CONFIG": "/d"}, tmp_path) == Path("/d/config.json")
    both = {"DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/a.json"}
    assert login_file(both, tmp_path) == Path("/a.json")


# sources


@pytest.mark.slow
def test_a_registry_without_tls_must_be_allowed_explicitly(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0", make_image())
    reference = parse_reference(f"{registry.host}/team/app:1.0")
    wanted = WantedImage(reference=reference, arch="amd64", digest=None)
    with pytest.raises(ArtifactError, match="no source has the file"):
        Puller(options, RegistryOptions()).pull([wanted])
    assert registry.requests == []


def test_a_registry_with_tls_gets_no_token_from_a_server_without_tls(
    registry: Registry, options: FetchOptions
) -> None:

    repository = Repository(
        "https://registry.example/v2/app", Login(user="me", password="x"), options.session
    )
    with pytest.raises(SourceError, match="without TLS: refused"):
        repository._authorize(f'Bearer realm="http://{registry.host}/token"')
    assert registry.requests == []


def test_mirrors_are_tried_in_order_before_the_registry(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    registry.put("cache/library/nginx", "1.22", image)
    mirrors = {
        "docker.io": (f"http://{registry.host}/none", f"http://{registry.host}/cache"),
    }
    pulled = pull(registry, options, "nginx:1.22", mirrors=mirrors)
    assert pulled.image.image_id == image.image_id
    assert pulled.wanted.reference.name == "docker.io/library/nginx:1.22"
    assert registry.paths("manifests/1.22") == [
        "/v2/none/library/nginx/manifests/1.22",
        "/v2/cache/library/nginx/manifests/1.22",
    ]


def test_offline_a_missing_image_is_reported_with_ways_to_get_it(
    registry: Registry, options: FetchOptions
) -> None:
    with pytest.raises(ArtifactError, match="is not in the cache") as caught:
        pull(registry, dataclasses.replace(options, offline=True))
    hint = caught.value.hint or ""
    assert ["bundler fetch" in hint, "bundler lock" in hint, "docker save" in hint] == [True] * 3
    assert registry.requests == []


def test_all_failures_are_reported_at_once(registry: Registry, options: FetchOptions) -> None:
    how = RegistryOptions(insecure=frozenset({registry.host}))
    references = [parse_reference(f"{registry.host}/none{n}:1") for n in range(3)]
    with pytest.raises(ArtifactError) as caught:
        Puller(options, how).pull(
            WantedImage(reference=reference, arch="amd64", digest=None) for reference in references
        )
    assert [f"/none{n}:1: no source has the file" in caught.value.message for n in range(3)] == [
        True
    ] * 3


def test_a_tag_keeps_its_digest_until_it_is_refreshed(
    registry: Registry, options: FetchOptions
) -> None:
    old, new = make_image("old"), make_image("new")
    registry.put("team/app", "1.0", old)
    assert pull(registry, options).image.image_id == old.image_id
    registry.put("team/app", "1.0", new)
    assert pull(registry, options).image.image_id == old.image_id
    how = RegistryOptions(insecure=frozenset({registry.host}))
    wanted = pull(registry, options).wanted
    (pulled,) = Puller(options, how, refresh=True).pull([wanted])
    assert pulled.image.image_id == new.image_id
    assert pull(registry, options).image.image_id == new.image_id


def test_the_files_of_an_image_are_listed_from_the_cache(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0", make_image(), make_image(arch="arm64"))
    pulled = pull(registry, options)
    assert {file.digest for file in list_cached(pulled.wanted, options.cache)} == {
        file.digest for file in pulled.files
    }
    manifest = next(file for file in pulled.files if file.version == "manifest")
    options.cache.remove_blob("sha256", manifest.digest)
    assert [file.digest for file in list_cached(pulled.wanted, options.cache)] == [manifest.digest]
