"""Keeps: the only package that knows SQLAlchemy."""
