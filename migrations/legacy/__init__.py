"""Reads what the older proxy left on disk, and carries it into the database."""
