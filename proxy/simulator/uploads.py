"""Forms with files (multipart/form-data), read as mail is: the standard library's parser."""

from email.parser import BytesParser
from email.policy import HTTP

from proxy.simulator.forms import Json

TYPE = "multipart/form-data"
NUMBERS = frozenset({"n", "partial_images"})  # whole, and text in a form


def is_upload(content_type: str) -> bool:
    return content_type.lower().startswith(TYPE)


def parsed(raw: bytes, content_type: str) -> Json | None:
    """Its fields as JSON would have them, its files as bytes; None if it is no whole form. Of
    several files of a name the others have a number behind it."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser(policy=HTTP).parsebytes(head + raw)
    if not message.is_multipart() or message.defects:
        return None
    fields: Json = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            return None
        if part.get_filename() is None:
            fields[name] = _value(name, content)
        else:
            fields[f"{name} {len(fields)}" if name in fields else name] = content
    return fields


def _value(name: str, content: bytes) -> object:
    text = content.decode("utf-8", "replace")
    if name == "stream":
        return text == "true"
    return int(text) if name in NUMBERS and text.isdecimal() else text
