"""Does: memory, threads, network."""
