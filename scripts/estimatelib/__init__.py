"""Parts of estimate_benchmark.py."""
