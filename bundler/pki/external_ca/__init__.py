"""Bring your own PKI: authorities given as files, or certificates signed where the root's key is.

origins.py      where an authority comes from, and how the state directory keeps it
chains.py       from a certificate up to its root
rules.py        what an authority and a leaf must be, so that Kubernetes and etcd take them
constraints.py  name constraints of authorities
reading.py      certificates and keys out of files in the forms that PKI departments hand out
signers.py      who signs in a state, decided once
requests.py     what is to be signed elsewhere, and the requests for it (PKCS#10)
paperwork.py    requests, extensions and instructions as files for the one who signs
importing.py    what came back, checked against the plan, into the state: all or nothing
given.py        an authority that is given as files
report.py       what an import took, and what people should know of it
lacking.py      what a build waits for
"""
