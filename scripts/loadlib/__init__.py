"""What scripts/load_test.py is made of. `bench` alone needs the package `proxy`."""
