"""Images out of registries: by digest, for the node's machine, through faults, tokens and mirrors."""

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
from bundler.errors import ArtifactError, ConfigError
from bundler.formats.image_references import parse_reference
from bundler.sources.fetch import FetchOptions
from bundler.sources.images.credentials import Login, login_file, read_logins
from bundler.sources.images.pull import (
    Pulled,
    Puller,
    WantedImage,
    list_cached,
)
from bundler.sources.images.registry import MAX_TOKEN, RegistryOptions, Repository
from bundler.sources.retries import SourceError


class Clock(threading.Event):
    """Waits no time, and knows how long it would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return False


BASE = make_layer("base", b"shared" * 50_000)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with run_registry() as told:
        yield told


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
def test_an_image_is_fetched_whole_and_found_in_the_cache_after(
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
def test_each_node_gets_the_image_of_its_machine(
    registry: Registry, options: FetchOptions, index_type: str
) -> None:
    images = {arch: make_image(arch=arch) for arch in ("amd64", "arm64")}
    index = registry.put("team/app", "1.0", *images.values(), index_type=index_type)
    for arch, image in images.items():
        pulled = pull(registry, options, arch=arch)
        assert (pulled.image.image_id, pulled.served) == (image.image_id, index)
    # what the machines share came once
    assert len(registry.paths(f"/blobs/{sha256(images['amd64'].blobs[0])}")) == 1


@pytest.mark.parametrize("is_index", [True, False])
def test_a_missing_machine_is_named_with_those_that_there_are(
    registry: Registry, options: FetchOptions, is_index: bool
) -> None:
    registry.put("team/app", "1.0", make_image(), index_type=DOCKER_LIST if is_index else "")
    with pytest.raises(ArtifactError, match=r"amd64") as caught:
        pull(registry, options, arch="arm64")
    assert "arm64" in caught.value.message
    assert "`arch:`" in (caught.value.hint or "")


def test_a_digest_in_the_reference_is_what_is_asked_for(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    digest = registry.put("team/app", "1.0", image)
    registry.put("team/app", "1.0", make_image("newer"))
    assert pull(registry, options, f"team/app:1.0@{digest}").image.image_id == image.image_id
    assert registry.paths("manifests") == [f"/v2/team/app/manifests/{digest}"]


def test_a_missing_tag_comes_with_those_near_it(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0.1", make_image())
    with pytest.raises(ArtifactError, match="HTTP 404") as caught:
        pull(registry, options)
    assert "tags near it: 1.0.1" in (caught.value.hint or "")
    assert len(registry.paths("manifests")) == 1


def test_a_registry_that_fails_is_asked_again(registry: Registry, options: FetchOptions) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.faults = [("manifests", 500, {}), ("manifests", 503, {}), ("blobs", 502, {})]
    assert pull(registry, options).image.image_id == image.image_id
    assert len(registry.paths("manifests/1.0")) == 3


@pytest.mark.parametrize(
    ("asked", "waited"),
    [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0.01), ("-1", 0.01)],
)
def test_a_busy_registry_is_given_the_time_that_it_asks_for(
    registry: Registry, options: FetchOptions, asked: str, waited: float
) -> None:
    registry.put("team/app", "1.0", make_image())
    clock = Clock()
    registry.faults = [("manifests", 429, {"Retry-After": asked})]
    pull(registry, dataclasses.replace(options, stop=clock))
    assert clock.waits == [waited]


def test_a_registry_that_wants_an_hour_is_given_up(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.faults = [("manifests", 429, {"Retry-After": "3600"})]
    with pytest.raises(ArtifactError, match="asks to wait 3600 s"):
        pull(registry, options)
    assert len(registry.paths("manifests")) == 1


@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_is_refused_for_good_is_asked_for_once(
    registry: Registry, options: FetchOptions, status: int
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    layer = sha256(image.blobs[1])
    registry.faults = [(layer, status, {})]
    with pytest.raises(ArtifactError, match=f"layer 2 .*cannot be had:\n.*HTTP {status}"):
        pull(registry, options)
    assert len(registry.paths(layer)) == 1


def test_a_blob_that_is_not_its_digest_is_put_aside_and_named(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    wrong = bytearray(image.blobs[1])
    wrong[-1] ^= 1
    registry.blobs[sha256(image.blobs[1])] = bytes(wrong)
    with pytest.raises(ArtifactError, match=r"team/app:1.0 layer 2 .*not what its pin says"):
        pull(registry, options)
    assert not options.cache.has_blob("sha256", sha256(image.blobs[1]).removeprefix("sha256:"))
    registry.blobs |= image.contents
    assert pull(registry, options).image.image_id == image.image_id


def test_a_manifest_that_is_not_its_digest_is_refused(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    digest = registry.put("team/app", "1.0", image)
    registry.manifests[f"team/app/{digest}"] = (OCI_MANIFEST, make_image("evil").manifest)
    with pytest.raises(ArtifactError, match="is not what its digest says"):
        pull(registry, options, f"team/app:1.0@{digest}")


def test_a_layer_that_is_cut_off_is_resumed(registry: Registry, options: FetchOptions) -> None:
    incompressible = b"".join(sha256(str(n).encode()).encode() for n in range(20_000))
    image = MadeImage([make_layer("big", incompressible)])
    layer = image.blobs[0]
    registry.put("team/app", "1.0", image)
    registry.cut = {sha256(layer): len(layer) - 1000}
    assert pull(registry, options).image.image_id == image.image_id
    assert len(registry.paths(sha256(layer))) == 2
    assert 0 < max(registry.begins) < len(layer)


def test_documents_of_other_kinds_are_refused(registry: Registry, options: FetchOptions) -> None:
    registry.manifests["team/app/1.0"] = ("text/html", b"<html>log in</html>")
    with pytest.raises(ArtifactError, match="gives text/html, and no image manifest"):
        pull(registry, options)
    old = json.dumps({"schemaVersion": 1, "fsLayers": []}).encode()
    registry.manifests["team/app/1.0"] = (
        "application/vnd.docker.distribution.manifest.v1+json",
        old,
    )
    with pytest.raises(ArtifactError, match="no image manifest of schema 2"):
        pull(registry, options)


def test_layers_that_old_runtimes_cannot_unpack_are_refused(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    image.manifest = image.manifest.replace(b"tar+gzip", b"tar+zstd")
    registry.put("team/app", "1.0", image)
    with pytest.raises(ArtifactError, match=r"tar\+zstd") as caught:
        pull(registry, options)
    assert "docker save" in (caught.value.hint or "")


# tokens and logins


def test_a_token_is_asked_for_once_and_used_for_all(
    registry: Registry, options: FetchOptions
) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.wants_token = True
    assert pull(registry, options).image.image_id == image.image_id
    assert registry.paths("/token") == ["/token?service=here&scope=repository%3Ateam%2Fapp%3Apull"]


def test_a_token_may_come_in_pieces(registry: Registry, options: FetchOptions) -> None:
    image = make_image()
    registry.put("team/app", "1.0", image)
    registry.wants_token, registry.token_pieces = True, (1, 7)
    assert pull(registry, options).image.image_id == image.image_id


def test_an_endless_token_is_not_read_to_its_end(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token, registry.token = True, "x" * (MAX_TOKEN + 1)
    with pytest.raises(ArtifactError, match="sends a document of more than 1 MiB"):
        pull(registry, options)


def test_a_token_that_ends_midway_is_renewed(registry: Registry, options: FetchOptions) -> None:
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
    assert "log in (docker login" in (caught.value.hint or "")
    assert registry.paths("tags") == []
    wrong = {registry.host: Login(user="me", password="hunter3")}
    with pytest.raises(ArtifactError, match="HTTP 401") as caught:
        pull(registry, options, logins=lambda: wrong)
    assert "hunter3" not in f"{caught.value.message}{caught.value.hint}{wrong}"
    right = {registry.host: Login(user="me", password="hunter2")}
    assert pull(registry, options, logins=lambda: right).image.image_id == image.image_id


def test_a_wrong_token_is_told_once(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token = True
    image = make_image("other")
    registry.put("team/other", "1.0", image)
    registry.faults = [("/token", 200, {})]
    with pytest.raises(ArtifactError, match="gave no token"):
        pull(registry, options)
    assert len(registry.paths("manifests")) == 1


@pytest.mark.parametrize("token", ["a\r\nX-Evil: b", "sn\N{SNOWMAN}w", "a b", ""])
def test_a_token_that_no_header_can_hold_is_none_and_is_not_shown(
    registry: Registry, options: FetchOptions, token: str
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token, registry.token = True, token
    with pytest.raises(ArtifactError, match="gave no token") as caught:
        pull(registry, options)
    assert not token or token not in caught.value.message


@pytest.mark.parametrize("realm", ["http://[bad", "http://a:b/", "http:///token", "token"])
def test_a_realm_that_is_no_web_address_is_refused(
    registry: Registry, options: FetchOptions, realm: str
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token, registry.realm = True, realm
    with pytest.raises(ArtifactError, match="no web address|No scheme"):
        pull(registry, options)


NESTED = b"[" * 100_000


@pytest.mark.parametrize("what", ["/token", "/manifests/", "/tags/"])
def test_a_document_that_is_nested_without_end_is_refused(
    registry: Registry, options: FetchOptions, what: str
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.wants_token = what == "/token"
    registry.documents = {what: NESTED}
    ref = "team/app:1.1" if what == "/tags/" else "team/app:1.0"
    with pytest.raises(ArtifactError, match="gave no token|no image manifest|HTTP 404"):
        pull(registry, options, ref)


def test_a_registry_that_is_stopped_is_not_asked_again(
    registry: Registry, options: FetchOptions
) -> None:
    registry.put("team/app", "1.0", make_image())
    registry.faults = [("manifests", 503, {})] * 4
    patient = dataclasses.replace(options, backoff=60)
    threading.Timer(0.3, patient.stop.set).start()
    with pytest.raises(ArtifactError, match="stopped"):
        pull(registry, patient)
    assert len(registry.paths("manifests")) == 1


def test_netrc_is_not_asked(
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
        with pytest.raises(ConfigError, match="no file of logins") as caught:
            read_logins(path)
        assert "hunter2" not in caught.value.message


def test_the_file_of_logins_is_where_others_look_for_it(tmp_path: Path) -> None:
    assert login_file({}, tmp_path) == tmp_path / ".docker/config.json"
    assert login_file({"DOCKER_CONFIG": "/d"}, tmp_path) == Path("/d/config.json")
    both = {"DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/a.json"}
    assert login_file(both, tmp_path) == Path("/a.json")


# where from


def test_without_tls_only_by_explicit_choice(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0", make_image())
    reference = parse_reference(f"{registry.host}/team/app:1.0")
    wanted = WantedImage(reference=reference, arch="amd64", digest=None)
    with pytest.raises(ArtifactError, match="cannot be had"):
        Puller(options, RegistryOptions()).pull([wanted])
    assert registry.requests == []


def test_a_token_is_not_fetched_without_tls_for_a_registry_with_it(
    registry: Registry, options: FetchOptions
) -> None:

    repository = Repository(
        "https://registry.example/v2/app", Login(user="me", password="x"), options.session
    )
    with pytest.raises(SourceError, match="without TLS: refused"):
        repository._authorize(f'Bearer realm="http://{registry.host}/token"')
    assert registry.requests == []


def test_mirrors_are_asked_in_order_before_the_registry(
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


def test_offline_without_the_image_says_how_to_bring_it(
    registry: Registry, options: FetchOptions
) -> None:
    with pytest.raises(ArtifactError, match="is not in the cache") as caught:
        pull(registry, dataclasses.replace(options, offline=True))
    hint = caught.value.hint or ""
    assert ["bundler fetch" in hint, "bundler lock" in hint, "docker save" in hint] == [True] * 3
    assert registry.requests == []


def test_all_failures_are_told_at_once(registry: Registry, options: FetchOptions) -> None:
    how = RegistryOptions(insecure=frozenset({registry.host}))
    references = [parse_reference(f"{registry.host}/none{n}:1") for n in range(3)]
    with pytest.raises(ArtifactError) as caught:
        Puller(options, how).pull(
            WantedImage(reference=reference, arch="amd64", digest=None) for reference in references
        )
    assert [f"/none{n}:1 cannot be had" in caught.value.message for n in range(3)] == [True] * 3


def test_a_tag_stays_what_it_was_until_it_is_asked_anew(
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


def test_the_cache_knows_the_files_of_an_image(registry: Registry, options: FetchOptions) -> None:
    registry.put("team/app", "1.0", make_image(), make_image(arch="arm64"))
    pulled = pull(registry, options)
    assert {file.digest for file in list_cached(pulled.wanted, options.cache)} == {
        file.digest for file in pulled.files
    }
    manifest = next(file for file in pulled.files if file.version == "manifest")
    options.cache.remove_blob("sha256", manifest.digest)
    assert [file.digest for file in list_cached(pulled.wanted, options.cache)] == [manifest.digest]
