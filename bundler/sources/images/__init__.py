"""Download container images from registries into the cache, each pinned by its digest.

needed.py       which images the nodes load
wanted.py       which of them are pulled or read from files, with their digests
resolve.py      images from the registry or from files, and their lock entries
packages.py     the packages inside images, read once for each layer
pull.py         pull images into the cache
registry.py     a client for the OCI distribution protocol
options.py      mirrors, logins and insecure registries
credentials.py  logins from docker's configuration
"""
