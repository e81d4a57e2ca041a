"""Bundles: packed, described, signed, inspected and verified.

layout.py           which files of a node a tarball holds: all, without shared ones, or a delta
delta_base.py       `build --since`: what is already on the hosts
pack.py             a tree of files as a tarball
seal.py             the secrets of a tree, encrypted for one host
seal_keys.py        unseal codes and certificates in the state directory
unseal_code.py      the form of an unseal code
shared_payload.py   payload-DIGEST.tar: the files that nodes share, once
output.py           the directory that a build writes
signing.py          signatures over manifests and SHA256SUMS
documents.py        the SBOM and the provenance of each bundle
inventory.py        the items of other projects that both documents list
sbom.py             CycloneDX
provenance.py       in-toto statement, SLSA predicate
front.py            the first files of a bundle: node, manifest, and the state that made it
inspect.py          one bundle, checked against its manifest
verify.py           a directory of bundles, checked against SHA256SUMS, and `verify --public`
"""
