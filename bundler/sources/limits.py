"""How many downloads run in parallel, and how large a file of each kind may be."""

PARALLEL_DOWNLOADS = 4
MAX_PARALLEL_DOWNLOADS = 32
MAX_PACKAGE = 2 << 30  # bytes of a package of the operating system
MAX_SIDECAR = 1 << 20  # bytes of a file with digests, a signature or a certificate
