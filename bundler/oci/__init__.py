"""Container images: from registries and archives into the cache and into bundles."""
