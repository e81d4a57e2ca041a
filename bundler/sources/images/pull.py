"""Images of registries into the cache: documents, configuration and layers, each by its digest."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bundler.cache.refs import TAGS, recall, remember
from bundler.cache.store import Cache
from bundler.catalog import Artifact
from bundler.errors import ArtifactError
from bundler.files import write_atomically
from bundler.formats.image_manifests import (
    INDICES,
    MANIFESTS,
    Descriptor,
    ImageManifest,
    architecture_of,
    choose_manifest,
    digest_of,
    media_type_of,
    parse_manifest,
)
from bundler.formats.image_references import Reference
from bundler.formats.stored_images import Layer, Place, StoredImage
from bundler.sources.download import FetchOptions
from bundler.sources.download_errors import NotHereError
from bundler.sources.fetch import (
    ask_each,
    ensure_by,
    run_jobs,
    take_file,
)
from bundler.sources.images.registry import (
    Document,
    RegistryOptions,
    Repository,
    hint_at,
    list_repositories,
    retry,
)

ALGORITHM = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedImage:
    """One image for one machine: by a digest that is known, or by what its tag means."""

    reference: Reference
    arch: str
    digest: str | None  # sha256:… of a manifest or an index

    @property
    def label(self) -> str:
        """`registry.k8s.io/pause:3.9 (amd64)`."""
        return f"{self.reference.name} ({self.arch})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """An image in the cache."""

    wanted: WantedImage
    served: str  # the digest that the tag stood for: of an index, or of the manifest itself
    image: StoredImage
    files: tuple[Artifact, ...]  # every blob of it, documents included


class Puller:
    """Reads images; each repository is spoken to by one client, with its token."""

    def __init__(
        self, options: FetchOptions, registries: RegistryOptions, *, anew: bool = False
    ) -> None:
        """`anew`: ask what tags mean today, whatever they were seen to mean before."""
        self._anew = anew and not options.offline
        self._options = options
        self._registries = registries
        self._lock = threading.Lock()
        self._repositories: dict[str, tuple[Repository, ...]] = {}

    def pull(self, wanted: Iterable[WantedImage]) -> tuple[Pulled, ...]:
        """Every image, whole, in the cache; all failures in one ArtifactError."""
        images = tuple(wanted)
        manifests = run_jobs(
            [partial(self._find_manifest, image) for image in images], self._options
        )
        wished = {
            blob.digest: partial(self._ensure_blob, image, blob)
            for image, (_, manifest) in zip(images, manifests, strict=True)
            for blob in _list_blobs(image, manifest)
        }
        run_jobs(wished.values(), self._options)
        return tuple(
            _assemble(image, served, manifest, self._options.cache)
            for image, (served, manifest) in zip(images, manifests, strict=True)
        )

    def _find_manifest(self, wanted: WantedImage) -> tuple[str, ImageManifest]:
        """The digest that was served, and the manifest for the machine."""
        served = wanted.digest or self._resolve(wanted)
        content = self._ensure_document(wanted, served)
        media_type = media_type_of(content, wanted.label)
        if media_type in INDICES:
            chosen = choose_manifest(content, wanted.arch, wanted.reference.name)
            content = self._ensure_document(wanted, chosen.digest)
            media_type = chosen.media_type
        return served, parse_manifest(content, media_type, wanted.label)

    def _resolve(self, wanted: WantedImage) -> str:
        """What the tag stands for: as it was first seen, so that builds are repeatable."""
        known = recall(TAGS, wanted.reference.name, self._options.cache)
        if known and not self._anew:
            return known
        content = self._ask(wanted, wanted.reference.tag or "latest")
        digest = store_document(content, self._options.cache)
        remember(TAGS, wanted.reference.name, digest, self._options.cache)
        return digest

    def _ensure_document(self, wanted: WantedImage, digest: str) -> bytes:
        cache = self._options.cache
        if (content := read_document(digest, cache)) is not None:
            return content
        content = self._ask(wanted, digest)
        store_document(content, cache)
        return content

    def _ask(self, wanted: WantedImage, name: str) -> bytes:
        """A manifest or index from the first repository that has it, checked."""
        if self._options.offline:
            raise missing_image(wanted)

        def take(repository: Repository) -> bytes:
            served = repository.read(f"manifests/{name}")
            wished = name if name.startswith(f"{ALGORITHM}:") else served.digest
            _check_document(served, wished, f"{repository.base}/manifests/{name}")
            return served.content

        reference = wanted.reference
        repositories = {r.base: r for r in self._find_repositories(reference)}
        return ask_each(
            reference.name,
            repositories,
            lambda base: retry(partial(take, repositories[base]), self._options),
            partial(hint_at, reference, tuple(repositories.values()), self._options),
        )

    def _ensure_blob(self, wanted: WantedImage, blob: Artifact) -> None:
        def bring() -> Path:
            if self._options.offline:
                raise missing_image(wanted)
            path = f"blobs/{blob.pin}"
            sources = {f"{r.base}/{path}": r for r in self._find_repositories(wanted.reference)}
            return ask_each(
                blob.label,
                sources,
                lambda url: take_file(blob, replace(self._options, session=sources[url]), url),
                lambda _: "try again: what came is kept",
            )

        ensure_by(blob, self._options, bring)

    def _find_repositories(self, reference: Reference) -> tuple[Repository, ...]:
        key = f"{reference.registry}/{reference.repository}"
        with self._lock:
            if key not in self._repositories:
                session = self._options.session
                self._repositories[key] = list_repositories(reference, self._registries, session)
            return self._repositories[key]


def list_cached(wanted: WantedImage, cache: Cache) -> tuple[Artifact, ...]:
    """The files of an image as far as the cache knows them; only the first where it does not."""
    served = wanted.digest or recall(TAGS, wanted.reference.name, cache)
    if served is None:
        return ()
    files = [_as_document(wanted, served)]
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
    """A document out of the cache; None where it is not there, or was altered."""
    hexadecimal = digest.partition(":")[2]
    with cache.lock(f"{ALGORITHM}-{hexadecimal}"):
        if not cache.has_blob(ALGORITHM, hexadecimal):
            return None
        return cache.blob_path(ALGORITHM, hexadecimal).read_bytes()


def store_document(content: bytes, cache: Cache) -> str:
    """Put a document into the cache; its digest."""
    digest = digest_of(content)
    hexadecimal = digest.partition(":")[2]
    with cache.lock(f"{ALGORITHM}-{hexadecimal}"):
        if not cache.has_blob(ALGORITHM, hexadecimal):
            partial = cache.partial_path(ALGORITHM, hexadecimal)
            write_atomically(partial, content)
            cache.adopt(partial, ALGORITHM, hexadecimal)
    return digest


def missing_image(wanted: WantedImage) -> ArtifactError:
    """Offline, and the cache has it not."""
    return ArtifactError(
        f"{wanted.label} is not in the cache",
        hint="bring it there with bundler fetch (or bundler lock) where there is a network, and"
        " carry it with bundler cache export; or give it as a file: docker save -o FILE"
        f" {wanted.reference.name}, and `file: FILE` under `images`",
    )


def _check_document(served: Document, wished: str, where: str) -> None:
    """It is what was asked for, or what the registry says that it is; and it can be read."""
    found = digest_of(served.content)
    if wished.startswith(f"{ALGORITHM}:") and found != wished:
        raise ArtifactError(
            f"{where} is not what its digest says:\n  expected {wished}\n  found    {found}",
            hint="find out who changed it before you trust the registry",
        )
    try:
        known = media_type_of(served.content, where, served.media_type)
    except ArtifactError:
        known = ""
    if not known:
        what = served.media_type or "something"
        raise NotHereError(f"gives {what}, and no image manifest of schema 2")


def _list_blobs(wanted: WantedImage, manifest: ImageManifest) -> list[Artifact]:
    """Configuration and layers."""
    layers = enumerate(manifest.layers, start=1)
    return [
        _as_artifact(wanted, "configuration", manifest.config),
        *(_as_artifact(wanted, f"layer {number}", layer) for number, layer in layers),
    ]


def _as_artifact(wanted: WantedImage, what: str, blob: Descriptor) -> Artifact:
    """A blob as a file to fetch."""
    return Artifact(
        component=wanted.reference.name,
        version=what,
        arch=wanted.arch,
        url=wanted.reference.url,
        algorithm=ALGORITHM,
        digest=blob.hexadecimal,
        source="the image's manifest",
        size=blob.size,
    )


def _as_document(wanted: WantedImage, digest: str) -> Artifact:
    """A manifest or an index, whose size nobody has stated."""
    return replace(_as_artifact(wanted, "manifest", Descriptor("", digest, 0)), size=None)


def _assemble(wanted: WantedImage, served: str, manifest: ImageManifest, cache: Cache) -> Pulled:
    """All of it is in the cache by now."""
    config = _blob_path(manifest.config.hexadecimal, cache).read_bytes()
    architecture = architecture_of(config, wanted.label)
    if architecture != wanted.arch:
        raise ArtifactError(
            f"{wanted.reference.name} is for {architecture or 'no machine that it names'},"
            f" and nodes are {wanted.arch}",
            hint="choose another tag, or give an image of your own with `file:` and `arch:`",
        )
    layers = tuple(
        Layer(
            descriptor=layer,
            place=_whole(_blob_path(layer.hexadecimal, cache)),
            is_verified=True,
        )
        for layer in manifest.layers
    )
    documents = dict.fromkeys((served, manifest.descriptor.digest))
    files = (
        *(_as_document(wanted, digest) for digest in documents),
        *_list_blobs(wanted, manifest),
    )
    image = StoredImage(manifest=manifest, config=config, layers=layers)
    return Pulled(wanted=wanted, served=served, image=image, files=files)


def _whole(path: Path) -> Place:
    return Place(path=path, offset=0, size=path.stat().st_size)


def _blob_path(hexadecimal: str, cache: Cache) -> Path:
    return cache.blob_path(ALGORITHM, hexadecimal)
