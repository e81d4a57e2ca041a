"""The cache on the builder: upstream files by digest, and what is made from them once.

store.py        the directory, its files and its locks
stamps.py       the state of a file when it was last read and checked
refs.py         names and the digests that they stood for: image tags, URLs
names.py        names of files that are stored by digest
payload.py      large files, compressed once for all bundles
segments.py     the compressed files of payload.py
maintenance.py  verify and prune
archive.py      export and import as one tar file
"""
