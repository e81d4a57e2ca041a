"""How many downloads run in parallel."""

PARALLEL_DOWNLOADS = 4
MAX_PARALLEL_DOWNLOADS = 32
