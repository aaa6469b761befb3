"""What tokens of models cost: rows in, frozen values out; each change is a revision."""

import time
from dataclasses import asdict, dataclass, fields

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from proxy.core.prices import Price, Prices
from proxy.errors import Conflict, NotFound, PreconditionFailed
from proxy.store import revisions
from proxy.store.models import ModelPriceRow
from proxy.store.revisions import Author

KIND = "price"
FIELDS = tuple(f.name for f in fields(Price))


@dataclass(frozen=True, slots=True)
class StoredPrice:
    """`model`: its name, or the beginning of names and a `*`. `revision` is its version for
    If-Match."""

    model: str
    price: Price
    updated_at: float
    revision: int


def listed(connection: Connection) -> list[StoredPrice]:
    """All, by model."""
    rows = connection.execute(select(ModelPriceRow.__table__).order_by(ModelPriceRow.model))
    return [
        StoredPrice(
            row["model"],
            Price(**{f: row[f] for f in FIELDS}),
            row["updated_at"],
            row["revision"],
        )
        for row in rows.mappings()
    ]


def load_all(connection: Connection) -> Prices:
    """Ready for look-ups."""
    return Prices({stored.model: stored.price for stored in listed(connection)})


def put(
    session: Session, model: str, price: Price, *, author: Author, if_match: int | None = None
) -> None:
    """Sets the price of the model, whatever it was. What is equal already makes no revision.

    Raises Conflict if the model has a price under another spelling, and PreconditionFailed if
    `if_match` is not the row's revision.
    """
    row = _row(session, model, if_match)
    if row is None:
        _check_spelling(session, model)
    before = {f: getattr(row, f, None) for f in FIELDS}
    after = asdict(price)
    changes = {f: [before[f], after[f]] for f in FIELDS if before[f] != after[f]}
    if not changes:
        return
    number = revisions.record(
        session, author, "price set", [revisions.Change(KIND, model, changes)]
    )
    if row is None:
        row = ModelPriceRow(model=model)
        session.add(row)
    for field, value in after.items():
        setattr(row, field, value)
    row.updated_at, row.revision = time.time(), number
    session.flush()


def remove(
    session: Session, model: str, *, author: Author, if_match: int | None = None
) -> None:
    """The model costs nothing from now on. Raises NotFound, PreconditionFailed."""
    row = _row(session, model, if_match)
    if row is None:
        raise NotFound(f"{model!r} has no price.", code="price_not_found")
    lost = {f: [getattr(row, f), None] for f in FIELDS}
    revisions.record(session, author, "price removed", [revisions.Change(KIND, model, lost)])
    session.delete(row)
    session.flush()


def _row(session: Session, model: str, if_match: int | None) -> ModelPriceRow | None:
    row = session.get(ModelPriceRow, model)
    revision = row.revision if row else None
    if if_match is not None and revision != if_match:
        is_at = f"is at revision {revision}" if row else "is not there"
        raise PreconditionFailed(
            f"The price of {model!r} {is_at}, not at {if_match}: somebody changed it. Read it"
            " again, then repeat the change.",
        )
    return row


def _check_spelling(session: Session, model: str) -> None:
    """Models are found without regard to case: of two prices one would never count."""
    other = session.scalar(
        select(ModelPriceRow.model).where(func.lower(ModelPriceRow.model) == model.lower())
    )
    if other is not None:
        raise Conflict(
            f"{other!r} has a price, and is the same model; change that, or remove it first.",
            param="model",
        )
