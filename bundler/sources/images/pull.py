"""Pull images from registries into the cache: manifests, configurations and layers by digest."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bundler.cache.refs import TAGS, read_ref, write_ref
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.files import write_atomically
from bundler.formats.image_manifests import (
    INDICES,
    MANIFESTS,
    MAX_DOCUMENT,
    MAX_LAYER,
    Descriptor,
    ImageManifest,
    architecture_of,
    choose_manifest,
    digest_of,
    media_type_of,
    parse_manifest,
)
from bundler.formats.image_references import Reference
from bundler.formats.stored_images import ByteRange, Layer, StoredImage
from bundler.sources.download import FetchOptions
from bundler.sources.fetch import (
    run_jobs,
    try_sources,
)
from bundler.sources.images.options import RegistryOptions
from bundler.sources.images.registry import (
    ALGORITHM,
    RegistryDocument,
    Repository,
    check_digest,
    ensure_repository_blob,
    list_repositories,
    make_hint,
)
from bundler.sources.images.wanted import WantedImage
from bundler.sources.retries import SourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """An image in the cache."""

    wanted: WantedImage
    served: str  # the digest that the tag stands for: of an index or of the manifest
    image: StoredImage
    files: tuple[Artifact, ...]  # all of its blobs, including documents


class Puller:
    """Pulls images, with one client and token for each repository."""

    def __init__(
        self, options: FetchOptions, registries: RegistryOptions, *, refresh: bool = False
    ) -> None:
        """`refresh`: resolve tags at the registry, even if the cache has their digests."""
        self._refresh = refresh and not options.offline
        self._options = options
        self._registries = registries
        self._lock = threading.Lock()
        self._repositories: dict[str, tuple[Repository, ...]] = {}

    def pull(self, wanted: Iterable[WantedImage]) -> tuple[Pulled, ...]:
        """Pull every image into the cache; one ArtifactError lists all failures."""
        images = tuple(wanted)
        manifests = run_jobs(
            [partial(self._find_manifest, image) for image in images], self._options
        )
        downloads = {
            blob.digest: partial(self._ensure_blob, image, blob)
            for image, (_, manifest) in zip(images, manifests, strict=True)
            for blob in _list_blobs(image, manifest)
        }
        run_jobs(downloads.values(), self._options)
        return tuple(
            _assemble(image, served, manifest, self._options.cache)
            for image, (served, manifest) in zip(images, manifests, strict=True)
        )

    def _find_manifest(self, wanted: WantedImage) -> tuple[str, ImageManifest]:
        """The digest that was served, and the manifest for the architecture."""
        served = wanted.digest or self._resolve(wanted)
        if wanted.index:
            self._ensure_document(wanted, wanted.index)
        content = self._ensure_document(wanted, served)
        media_type = media_type_of(content, wanted.label)
        if media_type in INDICES:
            chosen = choose_manifest(content, wanted.arch, wanted.reference.name)
            content = self._ensure_document(wanted, chosen.digest)
            media_type = chosen.media_type
        return served, parse_manifest(content, media_type, wanted.label)

    def _resolve(self, wanted: WantedImage) -> str:
        """The digest that a tag stands for; the first one stays, so that builds are repeatable."""
        known = read_ref(TAGS, wanted.reference.name, self._options.cache)
        if known and not self._refresh:
            return known
        content = self._download_document(wanted, wanted.reference.tag or "latest")
        digest = store_document(content, self._options.cache)
        write_ref(TAGS, wanted.reference.name, digest, self._options.cache)
        return digest

    def _ensure_document(self, wanted: WantedImage, digest: str) -> bytes:
        cache = self._options.cache
        if (content := read_document(digest, cache)) is not None:
            return content
        content = self._download_document(wanted, digest)
        store_document(content, cache)
        return content

    def _download_document(self, wanted: WantedImage, name: str) -> bytes:
        """Download a manifest or index from the first repository that has it, and check it."""
        if self._options.offline:
            raise not_in_cache(wanted)

        def download(repository: Repository) -> bytes:
            served = repository.read(f"manifests/{name}")
            _check_document(served, name, f"{repository.base}/manifests/{name}")
            return served.content

        reference = wanted.reference
        repositories = {r.base: r for r in self._find_repositories(reference)}
        return try_sources(
            reference.name,
            repositories,
            lambda base: self._options.retry(partial(download, repositories[base])),
            partial(make_hint, reference, tuple(repositories.values()), self._options),
            self._options,
        )

    def _ensure_blob(self, wanted: WantedImage, blob: Artifact) -> None:
        ensure_repository_blob(
            blob,
            self._options,
            partial(self._find_repositories, wanted.reference),
            partial(not_in_cache, wanted),
        )

    def _find_repositories(self, reference: Reference) -> tuple[Repository, ...]:
        key = f"{reference.registry}/{reference.repository}"
        with self._lock:
            if key not in self._repositories:
                session = self._options.session
                self._repositories[key] = list_repositories(reference, self._registries, session)
            return self._repositories[key]


def list_cached(wanted: WantedImage, cache: Cache) -> tuple[Artifact, ...]:
    """The files of an image, as far as the cache has its documents."""
    served = wanted.digest or read_ref(TAGS, wanted.reference.name, cache)
    if served is None:
        return ()
    files = [_as_document(wanted, digest) for digest in (served, wanted.index) if digest]
    content = read_document(served, cache)
    if content is not None and media_type_of(content, wanted.label) in INDICES:
        chosen = choose_manifest(content, wanted.arch, wanted.reference.name)
        files.append(_as_document(wanted, chosen.digest))
        content = read_document(chosen.digest, cache)
    if content is not None:
        manifest = parse_manifest(content, MANIFESTS[0], wanted.label)
        files += _list_blobs(wanted, manifest)
    return tuple(files)


def read_document(digest: str, cache: Cache) -> bytes | None:
    """A document from the cache, or None if it is missing or was altered."""
    hexadecimal = digest.partition(":")[2]
    with cache.lock(f"{ALGORITHM}-{hexadecimal}"):
        if not cache.has_blob(ALGORITHM, hexadecimal):
            return None
        return cache.blob_path(ALGORITHM, hexadecimal).read_bytes()


def store_document(content: bytes, cache: Cache) -> str:
    """Store a document in the cache; return its digest."""
    digest = digest_of(content)
    hexadecimal = digest.partition(":")[2]
    with cache.lock(f"{ALGORITHM}-{hexadecimal}"):
        if not cache.has_blob(ALGORITHM, hexadecimal):
            partial = cache.partial_path(ALGORITHM, hexadecimal)
            write_atomically(partial, content)
            cache.adopt(partial, ALGORITHM, hexadecimal)
    return digest


def not_in_cache(wanted: WantedImage) -> ArtifactError:
    """The error for an image that is missing in the cache when bundler is offline."""
    return ArtifactError(
        f"{wanted.label} is not in the cache",
        hint="run bundler fetch (or bundler lock) on a machine with a network and carry the cache"
        " over with bundler cache export; or use an image file: docker save -o FILE"
        f" {wanted.reference.name}, and `file: FILE` under `images`",
    )


def _check_document(served: RegistryDocument, name: str, where: str) -> None:
    """Check that a document has the stated digest and is an image manifest or index."""
    check_digest(served, name, where)
    try:
        known = media_type_of(served.content, where, served.media_type)
    except ArtifactError:
        known = ""
    if not known:
        what = served.media_type or "an unknown document"
        raise SourceError(f"served {what}, not an image manifest of schema 2")


def _list_blobs(wanted: WantedImage, manifest: ImageManifest) -> list[Artifact]:
    """Configuration and layers."""
    layers = enumerate(manifest.layers, start=1)
    return [
        _as_artifact(wanted, "configuration", manifest.config, MAX_DOCUMENT),
        *(_as_artifact(wanted, f"layer {number}", layer, MAX_LAYER) for number, layer in layers),
    ]


def _as_artifact(wanted: WantedImage, what: str, blob: Descriptor, most: int) -> Artifact:
    """A blob as a file to fetch."""
    return Artifact(
        component=wanted.reference.name,
        version=what,
        arch=wanted.arch,
        url=wanted.reference.url,
        algorithm=ALGORITHM,
        digest=blob.hexadecimal,
        source="the image's manifest",
        most=most,
        size=blob.size,
    )


def _as_document(wanted: WantedImage, digest: str) -> Artifact:
    """A manifest or an index, whose size is unknown."""
    document = _as_artifact(wanted, "manifest", Descriptor("", digest, 0), MAX_DOCUMENT)
    return replace(document, size=None)


def _assemble(wanted: WantedImage, served: str, manifest: ImageManifest, cache: Cache) -> Pulled:
    """The image from its files, which are all in the cache."""
    config = _blob_path(manifest.config.hexadecimal, cache).read_bytes()
    architecture = architecture_of(config, wanted.label)
    if architecture != wanted.arch:
        raise ArtifactError(
            f"{wanted.reference.name} is for {architecture or 'an unknown architecture'},"
            f" but nodes are {wanted.arch}",
            hint="choose another tag, or use an image file with `file:` and `arch:`",
        )
    layers = tuple(
        Layer(
            descriptor=layer,
            place=_all_of(_blob_path(layer.hexadecimal, cache)),
            is_verified=True,
        )
        for layer in manifest.layers
    )
    index = wanted.index or served
    documents = dict.fromkeys((served, index, manifest.descriptor.digest))
    files = (
        *(_as_document(wanted, digest) for digest in documents),
        *_list_blobs(wanted, manifest),
    )
    has_index = index != manifest.descriptor.digest
    image = StoredImage(
        manifest=manifest, config=config, layers=layers,
        index=_blob_path(index.partition(":")[2], cache).read_bytes() if has_index else b"",
    )  # fmt: skip
    return Pulled(wanted=wanted, served=served, image=image, files=files)


def _all_of(path: Path) -> ByteRange:
    return ByteRange(path=path, offset=0, size=path.stat().st_size)


def _blob_path(hexadecimal: str, cache: Cache) -> Path:
    return cache.blob_path(ALGORITHM, hexadecimal)
