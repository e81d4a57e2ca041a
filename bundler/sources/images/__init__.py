"""Container images: from registries and archives into the cache, each by its digest."""
