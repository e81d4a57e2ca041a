"""Keys and certificates: what the cluster needs, how it is issued, kept, renewed and replaced.

declarations.py  one declaration for each certificate
issuing.py       keys and certificates made; no file is touched
pairs.py         a key and its certificate as two files
store.py         reuse or create, in the state directory: the whole
leaves.py        the same of what authorities sign
kubeconfig.py    kubeconfigs with everything embedded
certs.py         certificates as they are, and when they end
renew.py         made anew before they end
rereads.py       who rereads which without a restart
rotation.py      new authorities by stages
stages.py        how far that is
endpoints.py     which server shows which certificate
live.py          certificates as servers show them
own/             bring your own PKI
"""
