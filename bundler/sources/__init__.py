"""Download what others publish, check it, and pin it in the lock.

artifacts.py         which upstream files a cluster needs, with which digests
lock.py              cluster.lock.yaml: its format, read and write
kustomize.py         render kustomizations with kubectl, without a network
tools.py             programs that the build runs, without a network
lock_update.py       make and update the lock; report drift
resolved.py          all files, images and packages with their digests, before a download
payloads.py          all large files fetched, and compressed once
fetch.py             files into the cache: mirrors in order, then upstream; parallel
download.py          one file from one source, resumed and hashed
limits.py            how many downloads run in parallel
retries.py           which errors are retried, how often and when
transport.py         HTTP sessions: TLS, proxies, redirects
mirrors.py           mirrors, and the order of sources for a URL
sidecars.py          digests and signatures that upstream publishes next to a file
trust.py             the keys in `upstream_keys`
signatures.py        check upstream signatures (OpenPGP, cosign, sigstore)
sigstore_bundles.py  check sigstore bundles
charts/              Helm charts from repositories and registries, rendered
images/              container images from registries
packages/            OS packages from apt and dnf repositories
"""
