"""Old files for tests, with sensible defaults: a test writes only what it is about."""

import json

KEY = "sk-planted-0123456789"
RECORD = {"name": "a", "api_key": KEY, "api_base": "https://a.openai.azure.com"}
STATE = {"name": "a", "status": "healthy", "error_count": 2, "total_requests": 7}


def record(name="a", **changes):
    return RECORD | {"name": name} | changes


def write(folder, name, content):
    """Text or bytes as they are, anything else as JSON."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_text(text, encoding="utf-8")
    return file


def told(reading):
    """All that a person may get to see of a reading."""
    notes = [note for each in reading.records for note in each.notes] + list(reading.notes)
    return " ".join([repr(reading), *map(repr, reading.records), *notes])
