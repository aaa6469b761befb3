"""What scripts/bench.py is made of: its own upstream and client in C, and what is measured."""
