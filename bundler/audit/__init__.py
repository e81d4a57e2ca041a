"""What is known against the contents of bundles, compared without a network.

parts.py         what a bundle or a cluster holds, from its SBOM or its plan
versions.py      versions of Go, Debian, RPM and Alpine, compared by the library univers
advisory.py      an advisory, and the ranges of versions that it is about
database.py      a file of advisories: which kind it is, and how old
built_in.py      the table of the catalog
osv.py           exports of OSV: a zip or a directory of JSON
grype.py         Grype's database, version 6
csaf.py          Red Hat's CSAF VEX files
debian.py        the data of Debian's security tracker
compare.py       parts against advisories: findings, and what does not apply
openvex.py       what does not apply, as OpenVEX statements
"""
