"""The digest algorithms that pins, locks and the cache use."""

DIGEST_LENGTHS = {"sha256": 64, "sha512": 128}
"""Algorithm → hexadecimal digits."""
