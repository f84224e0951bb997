"""Decline codes of providers and networks as data: `<provider>/declines.csv` and `networks/<network>.csv`.

Columns: `code, category, retry, scope, actor, flags, note, source`. A code is matched without regard to case
and is one of: exact text, a range of whole numbers (`2109-2999`), a prefix with a closing `*`. Flags,
separated by spaces:

    look_up    the payment may have gone through: find out before anything else, it is no decline
    stop       the network's own "never again" in the provider's words; no merchant override lifts it
    lasting    a stop that a new expiry date does not lift either
    unsent     refused before it reached a network, so it counts against no network rule
    wait=24h   the least time to wait before the next try, whatever a policy says

Everything is read and checked once, at first use.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TypeVar

from providers.categories import Actor, Category, RetryClass, Scope
from recovery_site.common.durations import parse_duration

FOLDER = Path(__file__).parent
COLUMNS = ("code", "category", "retry", "scope", "actor", "flags", "note", "source")
NETWORK_TABLES = ("visa", "mastercard_mac", "iso8583", "ach", "sepa", "bacs")
# Speaks in the codes of another provider's table.
SAME_CODES_AS = {"simulator": "sandbox"}
Word = TypeVar("Word", bound=StrEnum)
FLAGS = frozenset({"look_up", "stop", "lasting", "unsent"})


class DeclineTableError(ValueError):
    """A decline table is missing or cannot be read; the message names file, line and column."""


@dataclass(frozen=True, slots=True)
class DeclineRow:
    """What one code means. `wait` is the least time before the next try, None where none is named."""

    code: str
    category: Category
    retry: RetryClass
    scope: Scope
    actor: Actor
    note: str
    source: str
    look_up: bool = False
    stop: bool = False
    lasting: bool = False
    unsent: bool = False
    wait: timedelta | None = None


class DeclineTable(Mapping[str, DeclineRow]):
    """The rows of one file. Looking up a code ignores case and blanks around it; exact codes win over
    patterns."""

    __slots__ = ("_exact", "_prefixes", "_ranges", "name")

    def __init__(self, name: str, rows: Iterable[DeclineRow] = ()) -> None:
        self.name = name
        self._exact: dict[str, DeclineRow] = {}
        self._prefixes: list[tuple[str, DeclineRow]] = []
        self._ranges: list[tuple[int, int, DeclineRow]] = []
        for row in rows:
            self._add(row)
        self._prefixes.sort(key=lambda item: -len(item[0]))

    def _add(self, row: DeclineRow) -> None:
        key = _key(row.code)
        if key in self._exact:
            raise DeclineTableError(f"{self.name} lists the code {row.code!r} twice; keep one of the two rows.")
        self._exact[key] = row
        low, dash, high = key.partition("-")
        if dash and _is_number(low) and _is_number(high):
            self._ranges.append((int(low), int(high), row))
        elif key.endswith("*"):
            self._prefixes.append((key[:-1], row))

    def __getitem__(self, code: str) -> DeclineRow:
        key = _key(code)
        row = self._exact.get(key)
        if row is None and _is_number(key):
            row = next((row for low, high, row in self._ranges if low <= int(key) <= high), None)
        if row is None:
            row = next((row for prefix, row in self._prefixes if key.startswith(prefix)), None)
        if row is None:
            raise KeyError(code)
        return row

    def __iter__(self) -> Iterator[str]:
        return (row.code for row in self._exact.values())

    def __len__(self) -> int:
        return len(self._exact)


@dataclass(frozen=True, slots=True)
class DeclineTables:
    """One provider's table and those of the networks: everything classification looks things up in."""

    provider: Mapping[str, DeclineRow]
    networks: Mapping[str, Mapping[str, DeclineRow]]


@cache
def decline_table(provider: str) -> Mapping[str, DeclineRow]:
    """The provider's decline codes, checked. Raises DeclineTableError if it has no table or the table is
    broken."""
    name = SAME_CODES_AS.get(provider, provider)
    if not name.isidentifier():
        raise DeclineTableError(f"{provider!r} is no provider name; use the name of a folder under providers.")
    return read_table(FOLDER / name / "declines.csv", name)


@cache
def network_table(network: str) -> Mapping[str, DeclineRow]:
    """The codes of one of NETWORK_TABLES, checked. Raises DeclineTableError."""
    if network not in NETWORK_TABLES:
        raise DeclineTableError(f"There is no network table {network!r}; use one of {', '.join(NETWORK_TABLES)}.")
    return read_table(FOLDER / "networks" / f"{network}.csv", network)


class _Behind(Mapping[str, DeclineRow]):
    """A table, and behind it another that is asked for what the first does not list."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Mapping[str, DeclineRow], second: Mapping[str, DeclineRow]) -> None:
        self._first, self._second = first, second

    def __getitem__(self, code: str) -> DeclineRow:
        row = self._first.get(code)
        return self._second[code] if row is None else row

    def __iter__(self) -> Iterator[str]:
        yield from self._first
        yield from (code for code in self._second if code not in self._first)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@cache
def decline_tables(provider: str, gateway: str = "") -> DeclineTables:
    """The tables with which a decline of `provider` is classified. Raises DeclineTableError.

    `gateway`: whose words a biller or a switch passes on; codes that the provider's own table does not list are looked
    up in that gateway's, if there is one.
    """
    table = decline_table(provider)
    if gateway != provider and gateway in providers_with_tables():
        table = _Behind(table, decline_table(gateway))
    return DeclineTables(table, {name: network_table(name) for name in NETWORK_TABLES})


@cache
def providers_with_tables() -> tuple[str, ...]:
    """Names of the providers that ship a decline table, sorted."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/declines.csv")))


def providers_with_codes() -> tuple[str, ...]:
    """Names of the providers whose codes are known, those that speak in another one's codes included, sorted."""
    return tuple(sorted({*providers_with_tables(), *SAME_CODES_AS}))


def read_table(path: Path, name: str) -> DeclineTable:
    """Read and check one file; `name` is used in messages. Raises DeclineTableError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DeclineTableError(f"{name} has no decline table; add {path.parent.name}/{path.name}.") from None
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise DeclineTableError(f"{name}/{path.name} must start with the columns {','.join(COLUMNS)}.")
    return DeclineTable(name, [_row(line, f"{name}/{path.name} line {reader.line_num}") for line in reader])


def _row(line: Mapping[str, str | None], where: str) -> DeclineRow:
    if None in line or None in line.values():
        raise DeclineTableError(f"{where} must have exactly {len(COLUMNS)} columns.")
    cell = {column: (line[column] or "").strip() for column in COLUMNS}
    if not cell["code"] or not cell["note"] or not cell["source"]:
        raise DeclineTableError(f"{where} needs a code, a note and a source.")
    flags, wait = _flags(cell["flags"], where)
    return DeclineRow(
        code=cell["code"],
        category=_word(Category, cell["category"], where),
        retry=_word(RetryClass, cell["retry"], where),
        scope=_word(Scope, cell["scope"], where),
        actor=_word(Actor, cell["actor"], where),
        note=cell["note"],
        source=cell["source"],
        look_up="look_up" in flags,
        stop="stop" in flags,
        lasting="lasting" in flags,
        unsent="unsent" in flags,
        wait=wait,
    )


def _word(kind: type[Word], text: str, where: str) -> Word:
    try:
        return kind(text)
    except ValueError:
        raise DeclineTableError(f"{where} has {text!r}; use one of {', '.join(kind)}.") from None


def _flags(text: str, where: str) -> tuple[frozenset[str], timedelta | None]:
    words = text.split()
    waits = [word.removeprefix("wait=") for word in words if word.startswith("wait=")]
    flags = frozenset(word for word in words if not word.startswith("wait="))
    unknown = flags - FLAGS
    if unknown or len(waits) > 1:
        raise DeclineTableError(f"{where} has the flags {text!r}; use {', '.join(sorted(FLAGS))} and one wait=24h.")
    if "lasting" in flags and "stop" not in flags:
        raise DeclineTableError(f"{where} is lasting without being a stop; write both.")
    try:
        return flags, parse_duration(waits[0], name=f"{where} wait") if waits else None
    except ValueError as error:
        raise DeclineTableError(str(error)) from None


def _key(code: str) -> str:
    return code.strip().casefold()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
