"""The state directory: secrets and allocations that are created once for a cluster and then reused.

directory.py    its files
state_id.py     its id, which tells two states apart
tokens.py       the bootstrap tokens of workers
encryption.py   the keys that encrypt Secrets in etcd, and their rotation
stages.py       the steps of a rotation, and how one changes the directory
transaction.py  change several of its files at once
replaced.py     keep what a change replaces
archive.py      export and import it as one encrypted file
"""
