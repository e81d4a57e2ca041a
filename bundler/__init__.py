"""bundler: offline bundles for Kubernetes on plain hosts.

__main__.py   the entry point of the program
cli/          the commands
pipeline.py   a build: load → resolve → fetch → secrets → render → pack
packing.py    its last step: tarballs, runbook and SHA256SUMS
addon_bundles.py  bundles with one add-on: `bundler addon bundle`
downloads.py  downloads without a build: `bundler fetch` and `bundler lock`
starter.py    the first cluster.yaml: `bundler init`
project.py    the inputs of a command; cluster.yaml and the lock, read once
render/       the files of a node, rendered from templates/
bundle/       tarballs: packed, signed, inspected and verified
audit/        known vulnerabilities of what bundles hold
upgrade/      the differences between two builds, and the order of an upgrade
pki/          keys and certificates
state/        the state directory with the secrets of a cluster
sources/      upstream files, images and packages, and the lock that pins them
cache/        the cache on the builder
cluster/      cluster.yaml: schema, checks and the desired state
overlays/     which folders of templates/ a node has, and Jinja
catalog/      data: versions, digests, flags and configuration fields
formats/      file formats: images, bundles, tar archives, volumes
resources/    templates of files that are not part of a bundle
errors.py     the errors that users meet, each with an exit code
files.py      atomic writes
paths.py      where templates, cache and state directory are
log.py        results on stdout, messages on stderr
private_files.py  directories and files that only this user can change
progress.py   progress bars of downloads
urls.py       URLs without passwords, for messages and records
"""

__version__ = "0.1.0"
