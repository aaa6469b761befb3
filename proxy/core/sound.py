"""Watches a sound go by that is no stream of events: it has no words for what goes wrong."""

from proxy.core.tokens import SOUND_BYTES_PER_TOKEN
from proxy.core.types import Usage


class SoundWatcher:
    """As a StreamWatcher, as far as there is anything to see. It is whole when the connection
    says so; nobody says what it cost."""

    __slots__ = ("_bytes",)

    usage: Usage | None = None
    error: str | None = None
    is_clients_error = is_unclear_error = goes_on = False
    done = endless = has_ended = False

    def __init__(self) -> None:
        self._bytes = 0

    @property
    def content(self) -> bool:
        return self._bytes > 0

    @property
    def events(self) -> int:
        """About how many tokens."""
        return self._bytes // SOUND_BYTES_PER_TOKEN

    def feed(self, chunk: bytes) -> bytes:
        self._bytes += len(chunk)
        return chunk

    def is_whole(self) -> bool:
        return self.content

    def finish(self) -> bytes:
        return b""

    def last_words(self, _event: bytes) -> bytes:
        """None: they would be heard."""
        return b""
