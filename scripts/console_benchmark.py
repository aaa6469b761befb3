"""What open consoles cost: pages of /admin/ui that ask each second for what is live.

    python scripts/console_benchmark.py
    python scripts/console_benchmark.py --consoles 50 --instances 20 --seconds 20 --json

Starts a gateway with instances that nobody asks, and as many consoles as are to be open: each
has a connection of its own, and asks once a second for the table of instances, as the page
does. Prints what share of one core the gateway's processes take for it, above what they take
without: when nothing changes, so that all are told so (304), and when everything does, so that
each gets the whole table. Figures are reported, never judged.
"""

import argparse
import http.client
import json
import re
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

sys.path.append(str(Path(__file__).resolve().parent.parent))

from loadlib.azure import Started
from loadlib.gateway import Gateway, gateway

CONSOLES = 50
INSTANCES = 20
SECONDS = 20.0
TICK_SECONDS = 1.0
LATE_SECONDS = 0.02  # of the last: clocks and ways to us differ
MODEL = "gpt-4o"
NOWHERE = "http://127.0.0.1:9"  # nobody asks the instances
TABLE = "/admin/ui/live/instances"
DOOR = "/admin/ui/sign-in"
AIM = "The aim: 50 open consoles take less than 5 % of a core."


@dataclass(frozen=True, slots=True)
class Found:
    """`share` is of one core, all processes together, without what they take alone;
    `answer_bytes` of the last answer's body."""

    case: str
    consoles: int
    instances: int
    requests: int
    share: float
    answer_bytes: int


class Console:
    """One page that is open. `keeps`: it says what it has, and is told if that is still so."""

    def __init__(self, url: str, cookie: str, *, keeps: bool) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)
        self._headers = {"Cookie": cookie, "HX-Request": "true"}
        self._keeps = keeps
        self.requests = self.answer_bytes = 0

    def tick(self) -> None:
        self._connection.request("GET", TABLE, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 304):
            raise RuntimeError(f"{TABLE} was answered with {answer.status}")
        if self._keeps:
            self._headers["If-None-Match"] = answer.headers["ETag"]
        self.requests += 1
        self.answer_bytes = len(body)

    def live(self, late_seconds: float, is_over: threading.Event) -> None:
        """One tick a second, at whole seconds as the page does, and so much later."""
        while not is_over.wait(TICK_SECONDS - (time.time() - late_seconds) % TICK_SECONDS):
            self.tick()

    def close(self) -> None:
        self._connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    key = secrets.token_urlsafe(16)
    there = [Started(f"instance-{n}", NOWHERE, "none") for n in range(asked.instances)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with gateway(place, there, MODEL, settings={"ADMIN_API_KEY": key}) as started:
            cookie = signed_in(started.url, key)
            idle_share = share_during(started, asked.seconds)
            rows = [
                measured(started, cookie, asked, case, idle_share, keeps=keeps)
                for case, keeps in (("nothing changes", True), ("everything changes", False))
            ]
    report(rows, as_json=asked.json)
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--consoles", type=int, default=CONSOLES)
    parser.add_argument("--instances", type=int, default=INSTANCES)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true", help="one JSON array")
    return parser.parse_args(arguments)


def signed_in(url: str, key: str) -> str:
    """The cookie of a session."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", DOOR)
    answer = connection.getresponse()
    token = re.search(r'name="csrf_token" value="([^"]+)"', answer.read().decode())
    if token is None:
        raise RuntimeError(f"{DOOR} has no form")
    form = urlencode({"csrf_token": token[1], "key": key})
    headers = {
        "Cookie": cookie_of(answer),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection.request("POST", DOOR, form, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return cookie_of(answer)


def cookie_of(answer: http.client.HTTPResponse) -> str:
    return answer.headers["Set-Cookie"].partition(";")[0]


def share_during(started: Gateway, seconds: float) -> float:
    """Of one core, while that time passes."""
    before, began = started.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (started.cpu_seconds() - before) / (time.monotonic() - began)


def measured(
    started: Gateway,
    cookie: str,
    asked: argparse.Namespace,
    case: str,
    idle_share: float,
    *,
    keeps: bool,
) -> Found:
    consoles = [Console(started.url, cookie, keeps=keeps) for _ in range(asked.consoles)]
    is_over = threading.Event()
    threads = [
        threading.Thread(target=c.live, args=(LATE_SECONDS * n / len(consoles), is_over))
        for n, c in enumerate(consoles)
    ]
    for thread in threads:
        thread.start()
    time.sleep(2 * TICK_SECONDS)  # each has a connection, and what it shows
    share = share_during(started, asked.seconds)
    is_over.set()
    for thread in threads:
        thread.join()
    for console in consoles:
        console.close()
    return Found(
        case,
        asked.consoles,
        asked.instances,
        sum(c.requests for c in consoles),
        round(share - idle_share, 4),
        consoles[-1].answer_bytes if consoles else 0,
    )


def report(rows: Sequence[Found], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        print(
            f"{row.consoles} consoles, {row.instances} instances, {row.case:18}"
            f" {100 * row.share:5.2f} % of a core, {row.answer_bytes:,} bytes an answer"
        )
    print(AIM)


if __name__ == "__main__":
    sys.exit(main())
