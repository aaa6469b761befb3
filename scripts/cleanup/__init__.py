"""What scripts/cleanup_old_implementation.py is made of. Nothing here knows `proxy`."""
