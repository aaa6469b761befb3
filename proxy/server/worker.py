"""gunicorn's worker with threads, for clients that ask again at once, and for many at a time.

Its own hands each request from the loop to a thread and the connection back to the loop:
two switches of threads, a pipe, and four system calls. Here the thread looks for a moment
whether the client asks again, and goes on itself.

A thread is for requests that are there. Who has sent none yet, or half of one's head, or has
its answer and does not go, is looked after by the loop, so that a crowd of such clients takes
no thread from anybody; and where there are too many of them for more clients to connect, those
who were silent longest go.
"""

import io
import math
import mmap
import random
import selectors
import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from proxy.context import EXTENSION, Parts
from proxy.core.log_lines import text_of
from proxy.core.request_head import is_half, is_whole, says_something
from proxy.errors import ProxyError, RequestTimeout
from proxy.runtime.client_socket import READ_BYTES, ClientSocket
from proxy.runtime.least_connections import TAKES_NONE
from proxy.runtime.open_files import NO_MORE, Shortage
from proxy.runtime.streams import Stream
from proxy.runtime.tell import named
from proxy.runtime.threads import ThreadPool
from proxy.runtime.wire_errors import answer, refusal_of
from proxy.server.answer_writer import Answer
from proxy.server.known_heads import KnownHeads
from proxy.server.method_queue import MethodQueue
from proxy.server.request_reader import KnownRequest, RequestReader

# Made before the first request, so that many clients may begin in one moment: to make a thread
# costs more than what a request does until it waits for its upstream.
READY_THREADS = 128

# Of a kept connection after an answer. A client that works through a queue asks within a
# millisecond; for others it is one system call, and a thread that is idle a little later.
LINGER_MS = 5
# Of a new one until its first byte, before the loop looks after it. It mostly comes at once.
FIRST_BYTE_MS = 50
# Of a request's head as a whole, from its first byte on, however it dribbles.
HEAD_SECONDS = 30.0
# Of what was not read of a body, before the connection is given up.
UNREAD_SECONDS = 0.05
# Of a client to go, once it was told that its connection ends (RFC 9112, 9.6): without a word
# from it, and where it sends on. Who is refused in the middle of a large body is to read why,
# and some clients do not look before they have sent all of it.
LEAVE_SECONDS = 2.0
LEAVE_AT_MOST_SECONDS = 30.0
LEAVE_LEAST_BYTES = 65_536  # in LEAVE_SECONDS: who uploads sends more, who only stays does not
LEAVE_BYTES = 134_217_728
LATE_HEAD = "The request's head did not come in time."
# Where all threads are taken and others wait for one: how long a request may have had its own
# that is none of the calls, which have a time and a ceiling (runtime/open_calls.py).
HELD_SECONDS = 5.0

# Connections taken from the queue at once, before the loop looks at anything else: one for so
# many as there are. A few clients are shared among the workers; of a crowd nobody waits long.
CONNECTIONS_FOR_EACH = 8
# Of a new connection, while another worker has fewer: that one is awake within this time, or is
# too busy to be better.
OTHERS_FIRST_SECONDS = 0.001
# The same while it has no config to serve with, and could but say so.
WITHOUT_CONFIG_SECONDS = 0.02

# What becomes of a connection whose answer waits for its next event.
WATCHED = object()


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """What differs from gunicorn's is here, by the methods it has for that."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.method_queue = MethodQueue()
        self.alive: bool
        self.number = 0  # by which it has its cores; the parent gives it, and looks at it
        self._end = mmap.mmap(-1, 1)  # the parent sees it too
        self._at_work: set[Any] = set()  # connections that have a thread
        self._leaving: deque[Any] = deque()  # those that are to close, the first to close first
        self._shortage = Shortage()
        # By the address that is listened on, which WSGI tells, too.
        self._heads: defaultdict[Any, KnownHeads] = defaultdict(KnownHeads)

    def note_end(self) -> None:
        """It ends as it should, with all that was counted written."""
        self._end[0] = 1

    @property
    def was_killed(self) -> bool:
        """Of one that has ended, in the parent: nobody told it to, or it did not do so."""
        return self.aborted or not self._end[0]

    def load_wsgi(self) -> None:
        super().load_wsgi()
        parts: Parts = self.wsgi.extensions[EXTENSION]
        self._turnstile = parts.turnstile
        self._calls = parts.open_calls
        self._streams = parts.streams
        self._least = parts.least_connections
        self._snapshots = parts.snapshots
        self._draining = parts.draining
        parts.roster.threads = self.tpool

    def get_thread_pool(self) -> ThreadPool:
        return ThreadPool(self.cfg.threads, ready=READY_THREADS)

    # The loop's.

    def set_accept_enabled(self, enabled: bool) -> None:
        enabled = enabled and not self._shortage.is_on
        super().set_accept_enabled(enabled)
        self._least.note(self._told_count if enabled else TAKES_NONE)

    @property
    def _told_count(self) -> int:
        """To the other workers, of its connections. Without config it is to be left none."""
        return self.nr_conns if self._snapshots.is_read else TAKES_NONE

    def accept(self, listener: Any) -> None:
        if not self._snapshots.is_read:
            time.sleep(WITHOUT_CONFIG_SECONDS)
        elif self._least.is_another(self.nr_conns):
            time.sleep(OTHERS_FIRST_SECONDS)
        for _ in range(1 + self.nr_conns // CONNECTIONS_FOR_EACH):
            before = self.nr_conns
            self._accept_one(listener)
            self._least.note(self._told_count)
            if self.nr_conns in (before, self.worker_connections):
                return

    def _accept_one(self, listener: Any) -> None:
        """Where there are no more files, the client waits in the queue: of all who have one
        already nobody is to be lost for it."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in NO_MORE:
                raise
            self._shortage.note(self.nr_conns)
            self.set_accept_enabled(False)

    def enqueue_req(self, conn: Any) -> None:
        if not isinstance(conn.sock, ClientSocket):
            conn.sock = ClientSocket(conn.sock, self._turnstile.leave)
        self.tpool.submit(partial(self._serve, conn))

    def on_client_socket_readable(self, conn: Any, client: ClientSocket) -> None:
        """Pages that are open ask the same each second: a thread for that would cost more than
        the answer."""
        if client.again is not None and self.alive and self._answer_again(conn, client.again):
            self.keepalived_conns.remove(conn)  # they are in the order of their ends
            conn.set_timeout()
            self.keepalived_conns.append(conn)
        else:
            super().on_client_socket_readable(conn, client)

    def _answer_again(self, conn: Any, again: Callable[[bytes], bytes | None]) -> bool:
        """Answers a client that asks the same as before, here and now. False: it asks something
        else, or did not take all of the answer; then it is a thread's."""
        client = conn.sock
        try:
            client.repeated = client.peeked()
            said = again(client.repeated)
            if said is None:
                return False
            client.recv(len(client.repeated))
        except OSError:
            return False  # a thread finds it again, and knows what to do
        try:
            client.unsent = said[client.send(said) :]
        except BlockingIOError:
            client.unsent = said
        except OSError:
            pass  # as before
        return not client.unsent

    def finish_request(self, conn: Any, future: Any) -> None:
        super().finish_request(conn, future)
        if conn.sock.head_until < math.inf:
            conn.timeout = conn.sock.head_until

    def murder_pending(self) -> None:
        """What the loop does each time it wakes, at least once a second."""
        now = time.monotonic()
        # Unlike gunicorn's they are in no order: half of a head has a time of its own.
        for conn in [c for c in self.pending_conns if c.timeout <= now]:
            self._give_up(conn, self.pending_conns)
        while self._leaving and self._leaving[0].timeout <= now:
            self._give_up_or_wait(self._leaving[0], now)
        if self.nr_conns >= self.worker_connections or self._shortage.is_on:
            self._make_room()
        if self._accepting:
            self._least.note(self._told_count)
        if self.tpool.is_full:
            self._relieve(now)

    def _cap_keepalive(self, deadline: float) -> None:
        """The worker ends, and does not wait for those who say nothing."""
        self._stop_listening()
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _stop_listening(self) -> None:
        """gunicorn does so only when the last answer is out: until then the system would go on
        to connect clients, whom nobody serves. Where no other worker will take them, those who
        are connected already are served."""
        for listener in self.sockets:
            before = -1
            while self._draining.has_begun and before < self.nr_conns < self.worker_connections:
                before = self.nr_conns
                self._accept_one(listener)
            listener.close()

    def _make_room(self) -> None:
        """For the next client, if there is somebody who just stays connected."""
        for silent in (self._leaving, self.pending_conns, self.keepalived_conns):
            if silent:
                self._give_up(silent[0], silent)
                return

    def _give_up(self, conn: Any, silent: deque[Any]) -> None:
        silent.remove(conn)
        self.poller.unregister(conn.sock)
        if conn.sock.head_until < math.inf and says_something(
            conn.parser.unreader.buf.getvalue()
        ):
            self._refuse(conn.sock, conn.client, RequestTimeout(LATE_HEAD))
        conn.close()
        self._forget()

    def _relieve(self, now: float) -> None:
        """Others wait for a thread: whose client does not send, or does not read, is taken."""
        calls = self._calls.clients()
        for conn in list(self._at_work):
            is_long = conn.sock.begun_at < now - HELD_SECONDS
            if is_long and conn.sock not in calls and _is_waited_for(conn):
                conn.sock.shut_down()

    def _see_off(self, conn: Any) -> None:
        """Closes it when the client has, or has had its time."""
        conn.sock.head_until = math.inf
        now = time.monotonic()
        conn.timeout = now + LEAVE_SECONDS
        conn.sock.leave_until = now + LEAVE_AT_MOST_SECONDS
        conn.sock.setblocking(False)
        self._leaving.append(conn)
        self.poller.register(
            conn.sock, selectors.EVENT_READ, partial(self._on_leaving_readable, conn)
        )

    def _give_up_or_wait(self, conn: Any, now: float) -> None:
        """Of one that is to go, whose time has come: it has more, if it still sends, and the
        worker does not end."""
        came_bytes = conn.sock.left_bytes - conn.sock.looked_at_bytes
        is_over = now >= conn.sock.leave_until or not self.alive
        if is_over or came_bytes < LEAVE_LEAST_BYTES:
            self._give_up(conn, self._leaving)
            return
        conn.sock.looked_at_bytes += came_bytes
        conn.timeout = min(now + LEAVE_SECONDS, conn.sock.leave_until)
        self._leaving.remove(conn)
        self._leaving.append(conn)

    def _on_leaving_readable(self, conn: Any, client: ClientSocket) -> None:
        try:
            data = client.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conn.sock.left_bytes += len(data)
        if not data or conn.sock.left_bytes > LEAVE_BYTES:
            self._give_up(conn, self._leaving)

    def _forget(self) -> None:
        self.nr_conns -= 1

    # A request's thread's.

    def handle(self, conn: Any) -> Any:
        """The requests of one connection until its client pauses. False: close it."""
        if conn.sock.unsent:
            return self._send_unsent(conn)
        if not conn.initialized:
            # As gunicorn does it, but without a selector for each connection.
            conn.data_ready = conn.data_ready or conn.sock.is_readable(FIRST_BYTE_MS)
            if not conn.data_ready:
                return _DEFER  # or gunicorn would wait as long again
        while True:
            conn.sock.begun_at = math.inf
            if conn.sock.exchange is not None:
                conn.parser.goes_on = True
            elif not self._arrived(conn):
                return _DEFER if self.alive and conn.sock.head_until < math.inf else False
            conn.sock.begun_at = time.monotonic()  # its turn has come
            try:
                kept = super().handle(conn)
            finally:
                self._turnstile.leave()
            if kept is not True or not self.alive or not self._linger(conn):
                return kept

    def _send_unsent(self, conn: Any) -> bool:
        """Of an answer that was begun by the loop. Whether the client is still there."""
        conn.sock.begun_at = time.monotonic()
        rest, conn.sock.unsent = conn.sock.unsent, b""
        conn.sock.setblocking(True)
        try:
            conn.sock.sendall(rest)
        except OSError:
            return False
        return True

    def _arrived(self, conn: Any) -> bool:
        """Whether there is something to be read as a request. One that is whole takes its turn:
        who waits for the rest of one must not keep others waiting."""
        try:
            received = self._received(conn)
        except OSError:
            return True  # gunicorn finds it again, and knows what to do
        if is_whole(received):
            self._turnstile.enter()
        elif received and self._wait_for_rest(conn, received):
            return False
        conn.sock.head_until = math.inf
        return True

    def _received(self, conn: Any) -> bytes:
        """What there is of the next request; nothing if its client has left. Raises OSError."""
        conn.sock.setblocking(True)
        if not conn.initialized:
            heads = self._heads[conn.server]
            conn.parser = RequestReader(self.cfg, conn.sock, conn.client, heads)
            conn.init()
        buffer = conn.parser.unreader.buf
        received: bytes = buffer.getvalue()
        if received and conn.sock.head_until == math.inf:
            return received
        more: bytes | None = conn.sock.received_within(0) if received else conn.sock.received()
        if more:
            buffer.seek(0, io.SEEK_END)
            buffer.write(more)
        return b"" if more == b"" else received + (more or b"")

    def _wait_for_rest(self, conn: Any, received: bytes) -> bool:
        """Gives the rest of a head time until `head_until`. A head that cannot become one is
        refused: without end, which means that nothing is waited for. False: let it be read."""
        try:
            waits = is_half(received)
        except ProxyError as error:
            conn.sock.head_until = math.inf
            self._refuse(conn.sock, conn.client, error)
            return True
        if waits and conn.sock.head_until == math.inf:
            conn.sock.head_until = time.monotonic() + HEAD_SECONDS
        return waits

    def handle_request(self, req: Any, conn: Any) -> Any:
        """As gunicorn does it, but for its hooks and its own access log, which nobody has here.
        Whether the client may ask again, or WATCHED."""
        exchange, conn.sock.exchange = conn.sock.exchange, None
        if exchange is None:
            exchange = self._begun(req, conn)
        answer = exchange.answer
        try:
            is_over = True
            try:
                is_over = self._written(exchange, conn)
                if not is_over:
                    return WATCHED
                answer.close()
            finally:
                if is_over:
                    exchange.close()
        except OSError:
            raise  # the client has left, or is to be left
        except (Exception, SystemExit):
            if not answer.headers_sent:
                raise
            # A second head behind the first would be taken for its body.
            said = "A request failed in the middle of its answer."
            self.log.exception(said, extra=named("unexpected_error"))
            raise StopIteration from None
        conn.sock.end_answer()
        return not answer.should_close()

    def _begun(self, req: Any, conn: Any) -> "_Exchange":
        conn.sock.begin_answer()
        if isinstance(req, KnownRequest):
            answer, environ = Answer(req, conn.sock, self.cfg), req.taken()
        else:
            arguments = req, conn.sock, conn.client, conn.server, self.cfg
            answer, environ = wsgi.create(*arguments, response_class=Answer)
            environ["wsgi.multithread"] = True
            conn.parser.note(environ)
        self._count_request(answer)
        return _Exchange(answer, self.wsgi(environ, answer.start_response))

    def _written(self, exchange: "_Exchange", conn: Any) -> bool:
        """False: what comes next is waited for by the streams' thread."""
        stream, exchange.stream = exchange.stream, None
        if stream is not None and stream.unsent:
            conn.sock.sendall(stream.unsent)
            if self._hand_over(exchange, conn):
                return False
        if isinstance(exchange.body, wsgi.FileWrapper):
            exchange.answer.write_file(exchange.body)
            return True
        for piece in exchange.pieces:
            exchange.answer.write(piece)
            if self._hand_over(exchange, conn):
                return False
        return True

    def _hand_over(self, exchange: "_Exchange", conn: Any) -> bool:
        """Leaves the rest of a stream to the streams' thread, if that can watch it: `_serve`
        gives it there, when nothing of this thread's is to be done with it any more."""
        source = getattr(exchange.body, "source", None)
        if source is None or not (exchange.answer.is_open_ended and self._streams.is_running):
            return False
        number = source.watched()
        if number is None:
            return False
        go_on = partial(self.tpool.submit, partial(self._serve, conn))
        exchange.stream = Stream(number, source, conn.sock, exchange.answer.framed, go_on)
        conn.sock.exchange = exchange
        return True

    def _count_request(self, answer: Answer) -> None:
        self.nr += 1
        if self.alive and self.nr >= self.max_requests:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        is_last = not self.alive or not self.cfg.keepalive
        if is_last or len(self.keepalived_conns) >= self.max_keepalived:
            answer.force_close()

    def _keepalive_after(self, conn: Any, keepalive: Any) -> Any:
        """Not as gunicorn does it, which waits for seconds for what nobody wants to read."""
        self._turnstile.leave()
        if keepalive is WATCHED:
            return WATCHED
        try:
            until = time.monotonic() + UNREAD_SECONDS
            return bool(keepalive) and conn.parser.finish_body(deadline=until)
        except (ParseException, OSError):
            return False  # it had its answer: no second one

    def handle_error(self, _req: Any, client: Any, addr: Any, exc: Any) -> Any:
        """In OpenAI's shape, and without a word of what came."""
        self._turnstile.leave()  # it writes to the client
        error = refusal_of(exc)
        if error is None:
            said = "A request failed outside of the app."
            self.log.exception(said, extra=named("unexpected_error"))
            error = ProxyError("The gateway failed; its log has the details.")
        self._refuse(client, addr, error)

    def _refuse(self, client: ClientSocket, addr: Any, error: ProxyError) -> None:
        request_id = f"{random.getrandbits(64):016x}"
        fields = {"id": request_id, "client": addr and addr[0], "status": error.status}
        extra = named("connection_refused", **fields)
        self.log.info("refused %s: %s", text_of(fields), error.message, extra=extra)
        try:
            client.settimeout(0.0)  # it may not read
            client.end_answer()  # a head of its own, and all at once
            client.sendall(answer(error, request_id, time.time()))
        except OSError:
            pass  # it has gone

    def _linger(self, conn: Any) -> bool:
        """Waits a moment for the client's next request. Whether something came of it."""
        unreader = conn.parser.unreader
        conn.sock.repeated = b""  # of the one before
        if self.tpool.is_full:  # others wait for this thread
            return False
        if unreader.buf.getvalue():
            return True
        try:
            data = conn.sock.received_within(LINGER_MS)
        except OSError:
            return True  # gunicorn finds it again, and knows what to do
        if data:
            unreader.unread(data)
        return data is not None

    def _serve(self, conn: Any) -> None:
        done = _Done()
        self._at_work.add(conn)
        try:
            done.value = self.handle(conn)
        finally:
            self._at_work.discard(conn)
            if done.value is WATCHED:
                self._streams.add(conn.sock.exchange.stream)
            elif done.value:
                self.method_queue.defer(self.finish_request, conn, done)
            else:
                self._close(conn)

    def _close(self, conn: Any) -> None:
        """The client is to go first, or what it has not read yet is lost. Mostly it does so at
        once; for others the loop waits."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            has_gone = conn.sock.received_within(LINGER_MS) == b""
        except OSError:
            has_gone = True
        if has_gone:
            conn.close()
            self.method_queue.defer(self._forget)
        else:
            self.method_queue.defer(self._see_off, conn)


def _is_waited_for(conn: Any) -> bool:
    """Its client has not sent all of its request, or does not take its answer."""
    body = conn.parser.mesg.body.reader
    is_unread = getattr(body, "length", 0) or getattr(body, "parser", None)
    return bool(is_unread) or not conn.sock.is_writable()


class _Exchange:
    """A request's answer, and what it is made of. `stream`, where its rest is watched."""

    __slots__ = ("answer", "body", "pieces", "stream")

    def __init__(self, answer: Answer, body: Any) -> None:
        self.answer = answer
        self.body = body
        self.stream: Stream | None = None
        try:
            self.pieces = iter(body)
        except BaseException:
            self.close()  # nobody else will
            raise

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


class _Done:
    """What `finish_request` reads of a future."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = False

    def result(self) -> Any:
        return self.value

    def cancelled(self) -> bool:
        return False
