"""The state directory: what is made once for a cluster and reused ever after.

directory.py  its files, read and written
together.py   several of them that change as one
archive.py    all of it as one encrypted file
"""
