"""Bundles: trees packed, signed, described, read and verified.

pack.py        tree → tarball
arrange.py     whole, split, or as a change
since.py       what is on the hosts already
shared.py      what nodes share, once
volumes.py     numbered volumes for small media
output.py      the directory that a build writes
signing.py     signatures over manifests
verify.py      a directory of bundles, checked
inspect.py     one bundle, checked
archives.py    tarballs as streams
documents.py   the two documents in each bundle
inventory.py   what others made of it
sbom.py        CycloneDX
provenance.py  in-toto, SLSA
"""
