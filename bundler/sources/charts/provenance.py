"""Signatures of charts: Helm's provenance files (OpenPGP), and those of cosign in a registry.

Sources: https://helm.sh/docs/topics/provenance; cosign's specs/SIGNATURE_SPEC.md.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from bundler.cluster.inputs import UpstreamKey
from bundler.cluster.schema_addons import OCI, Addon
from bundler.errors import ArtifactError
from bundler.formats.bounded_yaml import YamlError, decode, read_manifests
from bundler.formats.safe_parse import read_json
from bundler.sources.charts.pinned import PinnedChart
from bundler.sources.charts.registry import ChartRegistry, find_provenance, open_registry
from bundler.sources.charts.resolve import ChartOptions
from bundler.sources.sidecars import SIGNATURE, fetch_sidecar
from bundler.sources.signatures import (
    BadSignatureError,
    VerifiedSignature,
    check_named,
    read_signed_message,
    verify_cosign,
)
from bundler.sources.trust import choose_signed
from bundler.urls import show_url

SUFFIX = ".prov"
END = b"\n...\n"
SIGNED = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"


def key_name(addon: str) -> str:
    """The key of `upstream_keys` for an add-on's chart."""
    return f"addons/{addon}"


def check_provenance(
    addon: Addon, found: PinnedChart, key: UpstreamKey, options: ChartOptions
) -> VerifiedSignature:
    """The signer of a chart; ArtifactError if the signature is missing or invalid."""
    registry = None
    if addon.chart and addon.chart.repo and addon.chart.repo.startswith(OCI):
        registry = open_registry(addon, options.fetch, options.registries)
    try:
        if key.cosign:
            return _check_cosign(found, key, registry)
        return _check_openpgp(found, key, registry, options)
    except BadSignatureError as error:
        raise ArtifactError(
            f"{found.artifact.label}: the signature is not valid: {error}",
            hint="find out who changed the chart, the signature or the key before you use it",
        ) from error


def _check_openpgp(
    found: PinnedChart, key: UpstreamKey, registry: ChartRegistry | None, options: ChartOptions
) -> VerifiedSignature:
    if registry:
        layer = find_provenance(registry.read_manifest(found.manifest))
        url = f"{found.url} ({SUFFIX})"
        content = registry.fetch_layer(layer, SIGNATURE.name, found.name) if layer else None
    else:
        url = (key.signature or f"{{url}}{SUFFIX}").replace("{url}", found.url)
        content = fetch_sidecar(found.artifact, SIGNATURE, url, options.fetch)
    if not content:
        raise _missing(found, show_url(url))
    text, signer = read_signed_message(content, key.openpgp)
    files = _read_files(text)
    digests = {value for name, value in files.items() if str(name).endswith(".tgz")}
    if digests != {f"sha256:{found.digest}"}:
        shown = ", ".join(sorted(map(str, digests))) or "no digest"
        raise BadSignatureError(f"it is of {shown}, and the chart is sha256:{found.digest}")
    return VerifiedSignature(signer=signer, url=url)


def _read_files(text: bytes) -> Mapping[str, Any]:
    """The digests in a provenance file: what follows the line `...` after Chart.yaml."""
    try:
        documents = [each.data for each in read_manifests(decode(text.rpartition(END)[2]))]
    except YamlError as error:
        raise BadSignatureError(f"its text is no YAML: {error}") from error
    files = [each.get("files") for each in documents if isinstance(each, dict)]
    return next((each for each in files if isinstance(each, dict)), {})


def _check_cosign(
    found: PinnedChart, key: UpstreamKey, registry: ChartRegistry | None
) -> VerifiedSignature:
    component = key_name(found.addon)
    signed = choose_signed(component, found.version, key)
    check_named(component, signed)
    if not registry:
        raise BadSignatureError("cosign signs charts of registries only")
    tag = f"{found.manifest.replace(':', '-')}.sig"
    url = f"{found.url.rpartition('/')[0]}/{tag}"
    try:
        layers = registry.read_manifest(tag).layers
    except ArtifactError as error:
        raise _missing(found, show_url(url)) from error
    reasons = []
    for layer in layers:
        try:
            _check_layer(found, layer, key, registry)
        except BadSignatureError as error:
            reasons.append(str(error))
        else:
            return VerifiedSignature(signer=f"cosign {signed.identity}", url=url)
    raise BadSignatureError("; ".join(dict.fromkeys(reasons)) or "it has no layer")


def _check_layer(
    found: PinnedChart, layer: Mapping[str, Any], key: UpstreamKey, registry: ChartRegistry
) -> None:
    annotations = layer.get("annotations")
    given = annotations if isinstance(annotations, dict) else {}
    signature, certificate = (str(given.get(name, "")).encode() for name in (SIGNED, CERTIFICATE))
    if not signature or not certificate:
        raise BadSignatureError("it has no certificate: signatures by a key pair are not checked")
    payload = registry.fetch_layer(layer, SIGNATURE.name, found.name)
    signed = choose_signed(key_name(found.addon), found.version, key)
    verify_cosign(hashlib.sha256(payload).digest(), signature, certificate, key, signed)
    try:
        digest = read_json(payload)["critical"]["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadSignatureError("it does not say what it is of") from error
    if digest != found.manifest:
        raise BadSignatureError(f"it is of {digest}, and the chart is {found.manifest}")


def _missing(found: PinnedChart, url: str) -> ArtifactError:
    return ArtifactError(
        f"{found.artifact.label}: upstream_keys requires a signature, but there is none at {url}",
        hint=f"remove upstream_keys.{key_name(found.addon)}, or ask upstream to sign the chart",
    )
