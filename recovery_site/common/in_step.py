"""The same work for many rows, in step: what all of it asks PostgreSQL at one time is asked in one statement.

Work is written for one row and knows nothing of this. Each piece runs in a greenlet of its own, inside one transaction;
at every statement that can be put for many (`Compiled`, `Question`, `row_save`, `row_insert`, `record_event`) it
stops until all the others have come to a statement too, then equal ones are run as one. Whatever else it does runs at
once, alone, on the same connection. See docs/adr/0020.

Pieces may not touch each other's rows: one that comes to a row that another has locked or written leaves, and is done
alone afterwards. So it stays with what two transactions could do to each other.
"""

import contextvars
import gc
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import greenlet
import structlog
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from psycopg.pq import TransactionStatus

log = structlog.get_logger()
ResultT = TypeVar("ResultT")
Many = Callable[[Sequence[Any]], Sequence[Any]]


# Of two that wait for each other, the one that can fall back on doing things alone gives up first: PostgreSQL looks for
# such a pair after a second.
_PATIENCE = "SET LOCAL lock_timeout = '500ms'"


class Alone(BaseException):
    """This piece has to be done in a transaction of its own. No Exception, so that no piece takes it for one of its."""


@dataclass(frozen=True, slots=True)
class Done(Generic[ResultT]):
    """What a piece returned, committed."""

    result: ResultT


class _Broken(Exception):
    """A piece left after it had written: nothing of this transaction may stay."""


class _Piece(greenlet.greenlet):
    """One piece of work. `wrote`: it has changed something, so that the others cannot go on without it."""

    def __init__(self, steps: "_Steps", work: Callable[[], Any], *, wrote: bool = False) -> None:
        super().__init__(self._work)
        self.gr_context = contextvars.copy_context()
        self._steps, self._do = steps, work
        self.wrote = wrote
        self.put_off: dict[Hashable, Callable[[], None]] = {}
        self.outcome: Any = None

    def _work(self, _: object) -> None:
        try:
            self.outcome = Done(self._do())
        except (Alone, Exception) as error:  # noqa: BLE001  # it is raised again where this is done alone
            self.outcome = error

    def end(self) -> None:
        """What was put off: it belongs to what this piece has written."""
        for work in self.put_off.values():
            work()


class _Steps:
    """The transaction of some pieces: what each waits for, and whose the rows are."""

    def __init__(self, works: Sequence[Callable[[], Any]]) -> None:
        self.database: Any = connections[DEFAULT_DB_ALIAS]
        self.depth = len(self.database.atomic_blocks)
        self.pieces = [_Piece(self, work) for work in works]
        self._asked: list[tuple[Hashable, Many, Any, _Piece]] = []
        self._owners: dict[tuple[type, Any], _Piece] = {}
        self._hub = greenlet.getcurrent()

    def run(self) -> list[Any]:
        """All pieces to their end. Raises _Broken, DatabaseError."""
        if self.depth == 1:  # else it would hold for what others do in this transaction later
            with self.database.cursor() as cursor:
                cursor.execute(_PATIENCE)
        ends = list[_Piece]()
        with self.database.execute_wrapper(self._watch):
            try:
                self._all(self.pieces)
                done = [piece for piece in self.pieces if isinstance(piece.outcome, Done)]
                ends = [_Piece(self, piece.end, wrote=True) for piece in done if piece.put_off]
                self._all(ends)
            finally:
                for piece in (*self.pieces, *ends):
                    if not piece.dead:
                        piece.throw()
        if self.database.needs_rollback:
            raise _Broken("A piece left a block of Django's by an error: this transaction cannot be committed.")
        return [piece.outcome for piece in self.pieces]

    def _all(self, pieces: Sequence[_Piece]) -> None:
        for piece in pieces:
            self._go_on(piece, None)
        while self._asked:
            self._step()

    def _step(self) -> None:
        asked, self._asked = self._asked, []
        groups: dict[Hashable, list[tuple[Many, Any, _Piece]]] = {}
        for key, many, values, piece in asked:
            groups.setdefault(key, []).append((many, values, piece))
        answers: list[tuple[_Piece, Any]] = []
        for group in groups.values():
            told = group[0][0]([values for _, values, _ in group])
            answers += zip((piece for _, _, piece in group), told, strict=True)
        for piece, answer in answers:
            self._go_on(piece, answer)

    def _go_on(self, piece: _Piece, answer: Any) -> None:
        piece.switch(answer)
        left = piece.dead and not isinstance(piece.outcome, Done)
        if left and (piece.wrote or self.database.connection.info.transaction_status != TransactionStatus.INTRANS):
            raise _Broken(str(piece.outcome)) from piece.outcome

    def ask(self, piece: _Piece, key: Hashable, many: Many, values: Any, *, writes: bool) -> Any:
        piece.wrote = piece.wrote or writes
        self._asked.append((key, many, values, piece))
        return self._hub.switch()

    def own(self, piece: _Piece, rows: Iterable[tuple[type, Any]]) -> None:
        for row in rows:
            if self._owners.setdefault(row, piece) is not piece:
                raise Alone(f"{row[0].__name__} {row[1]} is another's in this transaction.")

    def _watch(self, run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """What a piece runs by itself may write as well."""
        piece = greenlet.getcurrent()
        if isinstance(piece, _Piece) and sql.lstrip("( \n")[:6].upper() != "SELECT":
            piece.wrote = True
        return run(sql, params, many, context)


def _current() -> tuple[_Steps, _Piece] | None:
    """The piece that runs, None outside of any and inside a savepoint of its own, which must not be left half done."""
    piece = greenlet.getcurrent()
    if not isinstance(piece, _Piece) or len(piece._steps.database.atomic_blocks) != piece._steps.depth:
        return None
    return piece._steps, piece


def ask(key: Hashable, many: Many, values: Any, *, writes: bool = False) -> Any:
    """`many([values])[0]`, or together with all pieces that ask under the same key at the same time.

    `many` takes a list of values and gives as many answers, in the same order.
    """
    if (now := _current()) is None:
        return many([values])[0]
    steps, piece = now
    return steps.ask(piece, key, many, values, writes=writes)


def own(rows: Iterable[tuple[type, Any]], *, written: bool = False) -> None:
    """These rows (model, primary key) were locked or `written` by the piece that runs. Raises Alone if another one of
    this transaction has them."""
    piece = greenlet.getcurrent()
    if isinstance(piece, _Piece):
        piece.wrote = piece.wrote or written
        piece._steps.own(piece, rows)


def at_end(key: Hashable, work: Callable[[], None]) -> bool:
    """Put off a write until all pieces have done all else, so that what changes often is written once; of several
    with one `key` the last. False outside of any piece, where nothing is put off.

    A savepoint may take back what is written in it: who comes there with something put off is done alone.
    """
    if (piece := _putting_off(key)) is not None:
        piece.put_off[key] = work
    return piece is not None


def end_now(key: Hashable) -> None:
    """Do what was put off under this key, before it is read."""
    piece = _putting_off(key)
    if piece is not None and (work := piece.put_off.pop(key, None)):
        work()


def _putting_off(key: Hashable) -> _Piece | None:
    """The piece that runs, None in a savepoint of its own. Raises Alone there if it has put off something."""
    piece = greenlet.getcurrent()
    if isinstance(piece, _Piece) and _current() is None and key in piece.put_off:
        raise Alone("What was put off could be taken back with a savepoint.")
    return piece if isinstance(piece, _Piece) and _current() is not None else None


def beside_others() -> bool:
    """Whether a piece runs: what it does not find may be what another one is about to write."""
    return isinstance(greenlet.getcurrent(), _Piece)


@contextmanager
def undone_if_raised() -> Iterator[None]:
    """A savepoint around what may raise after it has written. In step there is none: who has written by then is done
    alone, which raises it again."""
    if (now := _current()) is None:
        with transaction.atomic():
            yield
        return
    try:
        yield
    except Exception as error:
        if now[1].wrote:
            raise Alone(str(error)) from error
        raise


@contextmanager
def _no_collection() -> Iterator[None]:
    """All that so many pieces make lives until they end: Python would look through it again and again in vain, for a
    tenth of the time they take."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def in_step(works: Sequence[Callable[[], ResultT]], *, durable: bool = False) -> list[Done[ResultT] | None]:
    """Do all of this in one transaction; None for each that has to be done alone, of which nothing is left.

    That is a piece that shares rows with another, and one that raised: its error comes out when it is done alone. If it
    had written before, or PostgreSQL refused a statement or let it wait for long, all of them are.
    """
    return in_step_as_chosen(lambda: works, durable=durable) if works else []


def in_step_as_chosen(
    choose: Callable[[], Sequence[Callable[[], ResultT]]], *, durable: bool = False
) -> list[Done[ResultT] | None]:
    """As `in_step`, for work that `choose` finds, and locks, at the beginning of the same transaction."""
    works: Sequence[Callable[[], ResultT]] | None = None
    try:
        with _no_collection(), transaction.atomic(durable=durable):
            works = choose()
            outcomes = _Steps(works).run() if works else []
    except Exception as error:
        if works is None:
            raise
        # Whatever it was, it comes again, and is handled, where each is done alone. Its text may quote rows.
        log.warning("in_step_broken", pieces=len(works), error=type(error.__cause__ or error).__name__)
        return [None] * len(works)
    return [outcome if isinstance(outcome, Done) else None for outcome in outcomes]
