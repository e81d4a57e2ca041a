"""What others publish: which files, under which digests, on whose word, and how they come here.

artifacts.py         which files a plan needs
lock.py              cluster.lock.yaml
locking.py           how a lock comes about, and what has drifted
signatures.py        upstream's signatures
sigstore_bundles.py  the same, of sigstore
beside.py            digests and signatures that lie beside a file
fetch.py             files into the cache: mirrors in order, then upstream
download.py          one file from one source
transport.py         HTTP as downloads use it
mirrors.py           where else a file may be had
faults.py            what may pass, and what will not
machine.py           for which machine a program is made
"""
