"""Download container images from registries into the cache, each pinned by its digest.

needed.py       which images the nodes load
resolve.py      images from the lock, the registry or a file
pull.py         pull images into the cache
registry.py     a client for the OCI distribution protocol
credentials.py  logins from docker's configuration
"""
