"""The cluster: what cluster.yaml says, what is wrong with it, and what is planned from it.

config.py      frozen models: the documented schema
supplies.py    images, pinned files, packages: what crosses the gate
formats.py     the forms of single values
loader.py      YAML → Cluster, every fault with its line
checks.py      what the fields say about one another
networks.py    the same of addresses and networks
extra.py       what the user adds to flags and configuration fields
images.py      which images a cluster has and needs
accepted.py    what the real programs take, by minor
components.py  tables of what runs where
settings.py    flags and fields of a minor, the user's on top
host.py        what a node asks of its host
plan.py        Cluster → Plan: every default explicit
"""
