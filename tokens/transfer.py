"""Token history as CSV: out for other systems and spreadsheets, in when recovery moves here from elsewhere.

One row per token. `retry_history` is a JSON object of instants (or dates) and how often the token was declined then;
the column names that Hyperswitch uses in its backfill files are understood too. docs/tokens.md describes every column.
"""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db import transaction
from django.utils.dateparse import parse_date, parse_datetime

from invoices.models import Attempt, Connection, Customer
from invoices.services.parties import customer_ensure, customer_lock
from invoices.states import TransactionKind
from providers.base import CardFacts, CustomerFacts, MethodFacts
from recovery_site.common.errors import InvalidInput, RecoveryError
from tokens.models import ImportedMark, Token
from tokens.networks import BANK_NETWORKS, normalise_network
from tokens.selectors import expiry_year, mark_declined
from tokens.services import cards_lock, method_apply, method_ensure, token_decline, token_remove
from tokens.states import TokenStatus

COLUMNS = (
    "customer_id",
    "token",
    "fingerprint",
    "network",
    "last4",
    "exp_date",
    "funding",
    "country",
    "is_default",
    "is_active",
    "error_code",
    "hard_decline",
    "added_by_payment_id",
    "retry_history",
)
_ALIASES = {
    "customer_id_resp": "customer_id",
    "connector_payment_id": "added_by_payment_id",
    "card_network": "network",
    "payment_method_sub_type": "funding",
    "country_name": "country",
    "daily_retry_history": "retry_history",
}
_MOST_PER_INSTANT = 1000
_MOST_INSTANTS = 5000
_MOST_PROBLEMS = 1000
_EXPIRY = re.compile(r"(0?[1-9]|1[0-2])/([0-9]{2}|[0-9]{4})", re.ASCII)
_TRUTH = {"": None, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# A cell that begins so is a formula to a spreadsheet; such cells are written behind an apostrophe and read without it.
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One line, understood. `history`: instants and counts."""

    customer_id: str
    token: str
    card: CardFacts
    kind: str
    is_default: bool
    is_active: bool
    error_code: str
    hard_decline: bool
    added_by_payment_id: str
    history: tuple[tuple[datetime, int], ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a line was left out."""

    line: int
    message: str


@dataclass(slots=True)
class ImportReport:
    """`tries`: declines that count from now on; `known`: those the ledger had already. Bad lines change nothing."""

    lines: int = 0
    imported: int = 0
    tokens_created: int = 0
    tries: int = 0
    known: int = 0
    failed: int = 0
    problems: list[Problem] = field(default_factory=list)
    ignored_columns: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "imported": self.imported,
            "tokens_created": self.tokens_created,
            "tries": self.tries,
            "known": self.known,
            "failed": self.failed,
            "problems": [{"line": problem.line, "message": problem.message} for problem in self.problems],
            "ignored_columns": self.ignored_columns,
        }


# --- in -------------------------------------------------------------------------------------------------------------


def history_import(
    *,
    connection: Connection,
    lines: Iterable[str],
    source: str,
    now: datetime,
    hourly: bool = False,
    progress: Callable[[int], None] = lambda number: None,
) -> ImportReport:
    """Take in a CSV file line by line, each in a transaction of its own; a bad line is reported and changes nothing.

    Reading the same file (or an overlapping one) again changes nothing: history is kept per token, instant and
    `source`, and what the ledger counts already is left out. Tokens and customers that are not known yet are created;
    of known tokens only the history is taken, because the ledger knows their state better. `hourly`: instants on the
    full hour stand for any time in it, so the hour's end counts. Raises InvalidInput if the file as a whole is no
    such CSV.
    """
    reader = csv.reader(lines, strict=True)
    header, report = _header(reader), ImportReport()
    report.ignored_columns = [name for name in header if name not in COLUMNS]
    while (cells := _next(reader, report)) is not None:
        progress(1)
        if not any(cells):
            continue
        report.lines += 1
        try:
            row = parse_row(_named(header, cells), now=now, hourly=hourly)
            _take(connection, row, source, now, report)
        except RecoveryError as error:
            report.failed += 1
            if len(report.problems) < _MOST_PROBLEMS:
                report.problems.append(Problem(reader.line_num, error.message))
        else:
            report.imported += 1
    return report


def _header(reader: Any) -> list[str]:
    try:
        names = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise InvalidInput(f"The file is no CSV: {error}.") from None
    header = [_ALIASES.get(name, name) for name in names]
    for needed in ("customer_id", "token"):
        if header.count(needed) != 1:
            raise InvalidInput(f"The first line must name the column {needed} once; it names {', '.join(names)}.")
    return header


def _next(reader: Any, report: ImportReport) -> list[str] | None:
    """The next line's cells; a line that cannot even be cut into cells is reported and passed over."""
    while True:
        try:
            cells: list[str] | None = next(reader, None)
        except csv.Error as error:
            report.lines += 1
            report.failed += 1
            report.problems.append(Problem(reader.line_num, f"The line is no CSV: {error}."))
        else:
            return cells


def _named(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise InvalidInput(f"The line has {len(cells)} cells, the header {len(header)}.")
    return {name: _plain(cell).replace("\x00", "").strip() for name, cell in zip(header, cells, strict=True)}


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_DANGEROUS) else cell


def parse_row(values: Mapping[str, str], *, now: datetime, hourly: bool = False) -> HistoryRow:
    """Understand one line. Raises InvalidInput with what to change."""
    network = values.get("network", "")
    kind = normalise_network(network)
    month, year = _expiry(values.get("exp_date", ""))
    country = values.get("country", "")
    for name in ("customer_id", "token"):
        if not 1 <= len(values[name]) <= 200:
            raise InvalidInput(f"{name} must have 1 to 200 characters.")
    return HistoryRow(
        customer_id=values["customer_id"],
        token=values["token"],
        card=CardFacts(
            fingerprint=values.get("fingerprint", ""),
            network=network,
            last4=values.get("last4", "")[-4:],
            exp_month=month,
            exp_year=year,
            funding=values.get("funding", ""),
            country=country if len(country) == 2 else "",
        ),
        kind=kind if kind in BANK_NETWORKS else "card",
        is_default=_truth(values, "is_default", default=False),
        is_active=_truth(values, "is_active", default=True),
        error_code=values.get("error_code", ""),
        hard_decline=_truth(values, "hard_decline", default=False),
        added_by_payment_id=values.get("added_by_payment_id", "")[:200],
        history=_history(values.get("retry_history", ""), now, hourly),
    )


def _expiry(text: str) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    match = _EXPIRY.fullmatch(text)
    if match is None:
        raise InvalidInput(f"exp_date is {text!r}; write MM/YY or MM/YYYY.")
    year = int(match[2])
    return int(match[1]), year if year >= 100 else 2000 + year


def _truth(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = values.get(name, "").lower()
    if text not in _TRUTH:
        raise InvalidInput(f"{name} is {text!r}; write true or false.")
    value = _TRUTH[text]
    return default if value is None else value


def _history(text: str, now: datetime, hourly: bool) -> tuple[tuple[datetime, int], ...]:
    if not text:
        return ()
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or len(document) > _MOST_INSTANTS:
        raise InvalidInput(f"retry_history must be a JSON object with at most {_MOST_INSTANTS} instants and counts.")
    found: Counter[datetime] = Counter()
    for key, count in document.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST_PER_INSTANT:
            raise InvalidInput(f"retry_history[{key!r}] is {count!r}; give a whole number from 0 to 1000.")
        at = _instant(key, hourly)
        if at > now + timedelta(days=1):
            raise InvalidInput(f"retry_history[{key!r}] lies in the future.")
        if count:
            found[at] += count
    return tuple(sorted((at, min(count, _MOST_PER_INSTANT)) for at, count in found.items()))


def _instant(text: str, hourly: bool) -> datetime:
    """A date stands for its last instant (UTC): nobody knows when on that day, and the latest is the strictest."""
    try:
        day = parse_date(text)
        at = None if day is not None else parse_datetime(text)
    except ValueError:
        day = at = None
    if day is not None:
        at = datetime.combine(day, time.max, UTC)
    elif at is None:
        raise InvalidInput(f"retry_history names {text!r}; write 2026-11-21 or 2026-11-21T09:30:00Z.")
    elif at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    if not date(1970, 1, 2) <= at.date() <= date(9000, 1, 1):
        raise InvalidInput(f"retry_history names {text!r}, which is no time of a charge.")
    at = at.astimezone(UTC)
    whole_hour = (at.minute, at.second, at.microsecond) == (0, 0, 0)
    return at + timedelta(hours=1) - timedelta(microseconds=1) if hourly and whole_hour else at


@transaction.atomic
def _take(connection: Connection, row: HistoryRow, source: str, now: datetime, report: ImportReport) -> None:
    customer = customer_lock(customer_ensure(connection=connection, facts=CustomerFacts(id=row.customer_id), now=now))
    token = Token.objects.filter(connection=connection, provider_token=row.token).first()
    if token is not None and token.customer_id != customer.pk:
        raise InvalidInput("The token belongs to another customer of this connection.")
    if token is None:
        token = _create(customer, row, now)
        report.tokens_created += 1
    else:
        cards_lock(customer)
    known = _known(token, row)
    kept = dict(ImportedMark.objects.filter(token=token, source=source).values_list("at", "count"))
    marks = []
    for at, count in row.history:
        count -= known[at]
        report.known += min(known[at], count + known[at])
        if count > kept.get(at, 0):
            report.tries += count - kept.get(at, 0)
            marks.append(
                ImportedMark(
                    merchant_id=token.merchant_id, card_id=token.card_id, token=token, at=at, count=count, source=source
                )
            )
        elif count > 0:
            report.known += count
    ImportedMark.objects.bulk_create(
        marks, update_conflicts=True, unique_fields=["token", "at", "source"], update_fields=["count"]
    )


def _create(customer: Customer, row: HistoryRow, now: datetime) -> Token:
    method = MethodFacts(token=row.token, kind=row.kind, card=row.card, is_default=row.is_default)
    keys = method_ensure(customer=customer, method=method, now=now, payment_id=row.added_by_payment_id)
    cards = cards_lock(customer, also=[keys.card_pk])
    method_apply(customer=customer, cards=cards, keys=keys, method=method, now=now)
    if row.hard_decline:
        token_decline(token_pk=keys.token_pk, code=row.error_code or "imported", now=now)
    if not row.is_active:
        token_remove(token_pk=keys.token_pk)
    return Token.objects.get(pk=keys.token_pk)


def _known(token: Token, row: HistoryRow) -> Counter[datetime]:
    """How often the ledger itself has a counting attempt of the token at one of these very instants."""
    attempts = Attempt.objects.filter(
        token=token, kind=TransactionKind.CHARGE, counts=True, attempted_at__in=[at for at, _ in row.history]
    )
    return Counter(attempts.values_list("attempted_at", flat=True))


# --- out ------------------------------------------------------------------------------------------------------------


def history_export(*, connection: Connection, since: datetime) -> Iterator[list[str]]:
    """The header, then one row per token, with every decline after `since`."""
    yield list(COLUMNS)
    tokens = Token.objects.filter(connection=connection).select_related("card", "customer")
    last = 0
    while batch := list(tokens.filter(pk__gt=last).order_by("pk")[:500]):
        declines = _declines([token.pk for token in batch], since)
        for token in batch:
            yield [_neutral(cell) for cell in _cells(token, declines[token.pk])]
        last = batch[-1].pk


def _declines(token_pks: Sequence[int], since: datetime) -> dict[int, Counter[datetime]]:
    found: dict[int, Counter[datetime]] = defaultdict(Counter)
    attempts = Attempt.objects.filter(
        token_id__in=token_pks, kind=TransactionKind.CHARGE, counts=True, attempted_at__gt=since
    )
    for pk, at, status, returned_at in attempts.values_list("token_id", "attempted_at", "status", "returned_at"):
        if mark_declined(status, returned_at):
            found[pk][at] += 1
    marks = ImportedMark.objects.filter(token_id__in=token_pks, at__gt=since)
    for pk, at, count in marks.values_list("token_id", "at", "count"):
        found[pk][at] += count
    return found


def _cells(token: Token, declines: Mapping[datetime, int]) -> list[str]:
    card = token.card
    history = {at.astimezone(UTC).isoformat(): count for at, count in sorted(declines.items())}
    return [
        token.customer.connector_customer_id,
        token.provider_token,
        card.fingerprint,
        card.network,
        card.last4,
        f"{card.exp_month:02d}/{expiry_year(card)}" if card.exp_month and card.exp_year else "",
        card.funding,
        card.country,
        str(token.is_default).lower(),
        str(token.status != TokenStatus.REMOVED).lower(),
        token.decline_code,
        str(token.status == TokenStatus.DECLINED).lower(),
        token.added_by_payment_id,
        json.dumps(history, separators=(",", ":")),
    ]


def _neutral(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_DANGEROUS) else cell
