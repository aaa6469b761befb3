"""What each worker took for clients and the others have not heard of yet, in memory that all
workers of a host share.

A row for each worker, in which only that worker writes. Workers take first and look then: of
two that do so in one moment at least one sees the other, so together they never take more than
there is; it may be that both take nothing. That needs no lock between processes, which one
that is killed would keep. (A processor shows its writes to others a little later, but long
before Python has come to the next line.)

Through the database workers hear of each other once in each sync interval. What one took
counts here until all have heard of it: a part of it is `written`, with the row's number; who
has read that write knows of that part already.
"""

import mmap
from array import array
from struct import Struct
from typing import cast

from proxy.core.allowance import NO_SPENDING, NOTHING, Amounts, Spending

# The memory is a column of 64-bit numbers: where the rows in use end; then each row: up to
# where it was used, the number of the last write that its worker has read, that of its own
# last write, and the clients' records. What nobody touched takes no memory.
ROWS_AT = 1
USED, HEARD, NUMBER, HEADER = range(4)
FREE, NOTHING_HEARD = 0, -1
# A record has the Amounts that its worker took and the others may not have heard of, what of
# these is written, and what tokens and cost of the budgets are settled: the rest is held.
WRITTEN, SETTLED = len(NOTHING), 2 * len(NOTHING)
RECORD = SETTLED + len(NO_SPENDING)
KINDS = range(len(NOTHING))
SPENT = len(NOTHING) - len(NO_SPENDING)  # the Amounts that are of budgets are the last
SPENT_KINDS = range(len(NO_SPENDING))
# More clients than that share records: their limits would be met a little early.
CLIENTS = 65_536
STRIDE = HEADER + CLIENTS * RECORD
CELL_BYTES = 8


class SharedCounts:
    """Made before the workers are forked. `take_row` is called by their parent for each; where
    nothing is forked there is one row, and nobody else. Not thread-safe: within a worker its
    owner locks."""

    def __init__(self, rows: int = 1) -> None:
        self._rows = max(rows, 1)
        self._owners: dict[int, int] = {}
        self._is_left_out = False
        self._amounts = Struct(f"{len(NOTHING)}q").unpack_from
        self._other_rows: tuple[int, ...] = ()
        self._make()

    def _make(self) -> None:
        self._memory = mmap.mmap(-1, CELL_BYTES * (ROWS_AT + self._rows * STRIDE))
        self._cells = memoryview(self._memory).cast("q")
        self._use_row(0)
        self._cells[0] = ROWS_AT + STRIDE
        self._cells[self._row + HEARD] = NOTHING_HEARD

    # The parent's.

    def take_row(self, owner: int) -> int | None:
        """The lowest free row is the next child's, for as long as it lives. None: there is
        none, and the child will know only of itself."""
        taken = set(self._owners.values())
        row = next((r for r in range(self._rows) if r not in taken), None)
        self._is_left_out = row is None
        if row is None:
            return None
        self._owners[owner] = row
        self._use_row(row)
        self._clear(row)
        self._cells[self._row + HEARD] = NOTHING_HEARD
        self._show_rows()
        return row

    def free_row(self, owner: int) -> int | None:
        """Its worker is dead; what it held is free, and the row that it had. Idempotent."""
        row = self._owners.pop(owner, None)
        if row is not None:
            self._clear(row)
            self._show_rows()
        return row

    def _use_row(self, row: int) -> None:
        self._row = ROWS_AT + row * STRIDE
        self._rows_end = 0  # of those that were looked for last

    def _clear(self, row: int) -> None:
        start = ROWS_AT + row * STRIDE
        end = max(self._cells[start + USED], HEADER)
        self._cells[start : start + end] = array("q", bytes(CELL_BYTES * end))

    def _show_rows(self) -> None:
        """Cheaper to look through than all."""
        self._cells[0] = ROWS_AT + (max(self._owners.values(), default=0) + 1) * STRIDE

    # A worker's.

    def start(self) -> None:
        """Once a process, after the fork."""
        if self._is_left_out:
            self._make()

    def record(self, number: int) -> int:
        """Where the records of the client with that number are, in each row."""
        at = HEADER + number % CLIENTS * RECORD
        if self._cells[self._row + USED] < at + RECORD:
            self._cells[self._row + USED] = at + RECORD
        return at

    def move(self, before: int, record: int) -> None:
        """What is in one of this worker's records into another."""
        for cell in range(RECORD):
            self._cells[self._row + record + cell] += self._cells[self._row + before + cell]
            self._cells[self._row + before + cell] = 0

    def add(self, record: int, amounts: Amounts, settled: Spending | None = None) -> None:
        """To what this worker took; `settled` is what of the budgets it is for good."""
        in_flight, requests, tokens, spent_tokens, cost_nano = amounts
        cells, at = self._cells, self._row + record
        cells[at] += in_flight
        if requests:
            cells[at + 1] += requests
        if tokens:
            cells[at + 2] += tokens
        if spent_tokens:
            cells[at + 3] += spent_tokens
        if cost_nano:
            cells[at + 4] += cost_nano
        if settled:
            cells[at + SETTLED] += settled[0]
            cells[at + SETTLED + 1] += settled[1]

    def about(self, record: int) -> Amounts:
        """What others took, or a little more: some of it may have been heard of."""
        rows = self._other_rows if self._cells[0] == self._rows_end else self._others()
        if not rows:
            return NOTHING
        first: Amounts = self._amounts(self._memory, CELL_BYTES * (rows[0] + record))
        if len(rows) == 1:
            return first
        others = (self._amounts(self._memory, CELL_BYTES * (r + record)) for r in rows[1:])
        return cast(Amounts, tuple(map(sum, zip(first, *others, strict=True))))

    def exactly(self, record: int) -> Amounts:
        """What others took, without what this worker has heard of."""
        heard = self._cells[self._row + HEARD]
        in_flight = requests = tokens = spent_tokens = cost_nano = 0
        for row in self._others():
            # In this order: whatever its worker does meanwhile, it is not too little.
            taken = self._amounts(self._memory, CELL_BYTES * (row + record))
            written = self._amounts(self._memory, CELL_BYTES * (row + record + WRITTEN))
            known = written if self._cells[row + NUMBER] <= heard else NOTHING
            in_flight += taken[0] - known[0]
            requests += taken[1] - known[1]
            tokens += taken[2] - known[2]
            spent_tokens += taken[3] - known[3]
            cost_nano += taken[4] - known[4]
        return in_flight, requests, tokens, spent_tokens, cost_nano

    def settled(self, record: int) -> Spending:
        """Of what `exactly` finds of the budgets, what stays: the rest others only hold."""
        heard = self._cells[self._row + HEARD]
        found = [0 for _ in SPENT_KINDS]
        for row in self._others():
            is_heard = self._cells[row + NUMBER] <= heard
            for kind in SPENT_KINDS:
                at = row + record + kind
                known = self._cells[at + WRITTEN + SPENT] if is_heard else 0
                # Below 0: what was settled before the client had a budget is not in it.
                found[kind] += max(self._cells[at + SETTLED] - known, 0)
        return found[0], found[1]

    def _others(self) -> tuple[int, ...]:
        """Where their rows are."""
        end = self._cells[0]
        if end != self._rows_end:
            self._rows_end = end
            rows = range(ROWS_AT, end, STRIDE)
            self._other_rows = tuple(row for row in rows if row != self._row)
        return self._other_rows

    def hear(self, number: int) -> None:
        """This worker has read that write, and all before."""
        self._cells[self._row + HEARD] = number or NOTHING_HEARD

    def all_heard(self) -> bool:
        """Everybody has read what this worker wrote last."""
        number = self._cells[self._row + NUMBER]
        heards = (self._cells[row + HEARD] for row in self._others())
        return all(heard == FREE or heard >= number for heard in heards)

    def begin_written(self, number: int) -> None:
        """What this worker adds to `written` from now on was in that write."""
        self._cells[self._row + NUMBER] = number

    def add_written(self, record: int, amounts: Amounts) -> None:
        at = self._row + record + WRITTEN
        for kind in KINDS:
            self._cells[at + kind] += amounts[kind]

    def drop_written(self, record: int) -> None:
        """All have heard of it."""
        cells, at = self._cells, self._row + record
        for kind in KINDS:
            written = cells[at + WRITTEN + kind]
            cells[at + WRITTEN + kind] = 0  # first: too much is better than too little
            cells[at + kind] -= written
            if kind >= SPENT:
                settled = at + SETTLED + kind - SPENT
                cells[settled] = max(cells[settled] - written, 0)
