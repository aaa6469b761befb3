"""What threads have done by the worker's loop, also when that has ended."""

import os

from gunicorn.workers.gthread import PollableMethodQueue


class MethodQueue(PollableMethodQueue):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's closes the pipe by which it wakes the loop while threads still write to it: to
    a number that may be another file by then, as the database.

    Here the end that is written to stays open as long as somebody holds the queue. Of the other
    nobody reads any more: what is written is refused by the system, as gunicorn expects.
    """

    _read_fd: int | None
    _write_fd: int | None

    def close(self) -> None:
        """What is deferred from now on is never done. Idempotent."""
        number, self._read_fd = self._read_fd, None
        if number is not None:
            os.close(number)

    def __del__(self) -> None:
        self.close()
        if self._write_fd is not None:
            os.close(self._write_fd)
