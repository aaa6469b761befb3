"""gunicorn's worker, and how it reads requests and writes answers, where ours differ."""
