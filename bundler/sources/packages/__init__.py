"""Resolve and download the OS packages that hosts need.

locked.py        packages of the lock and of packages.dir, and their drift
resolve.py       packages resolved with apt or dnf, and fetched
repositories.py  apt repositories from cluster.yaml or from the builder's configuration
apt.py           resolve packages with apt
dnf.py           resolve packages with dnf
dnf_solve.py     the part that runs in dnf's own Python
debs.py          read .deb files
rpms.py          read .rpm files and check their signatures
files.py         package files and their installation order
"""
