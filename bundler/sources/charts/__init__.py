"""Helm charts: found in repositories, pinned, and rendered.

pinned.py      a chart with its URL and digest, as the lock and the cache have it
repository.py  HTTP repositories: index.yaml, and the package
registry.py    OCI registries: the manifest of a chart, and its layers
resolve.py     which of these, and what is known already
provenance.py  signatures: .prov files, and those of cosign
proposals.py   entries of the lock
render.py      Helm, without a network
"""
