"""The cache on the builder: upstream files by digest, and what is made of them once.

store.py     where files are, and who holds them
marks.py     what a file was when it was last read whole
memory.py    what names were seen to mean
payload.py   large files, compressed once for all bundles
segments.py  where those lie
care.py      read again, and what nothing needs taken away
media.py     exported and imported as one file
"""
