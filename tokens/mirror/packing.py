"""The packed values that `select.lua` reads and answers with. Pure; no JSON, because parsing it is what costs.

Little-endian, positions counted from 1 as Lua does, instants as whole microseconds since 1970 in doubles (exact to
the year 2255), text that Redis never interprets.

    budget   magic c4, size I4, since d, live tokens H, dead tokens H, invoices B, more invoices B, version d,
                 soonest expiry d, latest wait d, amount d, currency c3 of every first class (-2: they differ)
             per live token, in the order that breaks ties: primary key d
             the same: network B, kind B, and of its first class of declines: marks B, position of the first mark H
                 (kind 0: no declines, 1: one class and complete, 2: more than that)
             the same: not before d, expires d, position of its classes H
             per invoice (only where a bank network counts them): primary key d, position of its classes H
             per budget group and per invoice: classes B, then per class: amount d, currency c3, flags B, marks H,
                 and its instants d, oldest first
    request  not before d, marks needed since d, amount d, currency c3, invoice d, size of the owner B, owner,
             per network: plain B, then twice (by amount B, limit H, window in hours H), position of its rules H
             per network that is not plain: rules B, then per rule: key B, counts all B, limit H,
                 window in hours H (0: calendar month), valid from d, valid to d (0: open)

A class holds the marks of one amount and currency, declined or not; of an invoice, of one network. Flags: 1 declined,
2 older ones were left out. Amount -1: nobody told it. Only the newest marks of a class are kept: no rule looks past
its limit. The position of a network's rules counts from the end of the owner, from 0. A network is plain if it has at
most two rules, all of them about declines of a card in a rolling window, without dates still to come: the usual case.
"""

import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, lru_cache

from tokens.budgets import AttemptMark
from tokens.networks import BANK_NETWORKS, CARD_NETWORKS, UNKNOWN
from tokens.rules import Counts, Key, Rule, RuleOverride, load_rules

MAGIC = b"RRB2"
# Above every limit of every rule; a rule that looks further is answered by PostgreSQL.
KEEP_MARKS = 64
MAX_TOKENS = 100
MAX_INVOICES = 50
MAX_BYTES = 16_384

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Doubles hold every whole number up to here.
_EXACT = 2**53
_NEVER = float(_EXACT)
_CODES = {name: code for code, name in enumerate((UNKNOWN, *CARD_NETWORKS, *BANK_NETWORKS))}
_KEYS = {Key.CARD: 0, Key.CARD_AMOUNT: 1, Key.INVOICE: 2}
_DECLINED, _MORE = 1, 2
_ANY_AMOUNT, _MIXED = -1.0, -2.0

_HEADER = struct.Struct("<4sIdHHBBdddd3s")
_TOKEN = struct.Struct("<BBBH")
_DETAIL = struct.Struct("<ddH")
_INVOICE = struct.Struct("<dH")
_CLASS = struct.Struct("<d3sBH")
_REQUEST = struct.Struct("<ddd3sdB")
_NETWORK = struct.Struct("<BBHHBHHH")
_RULE = struct.Struct("<BBHHdd")
_NO_LIMIT = 0xFFFF


class NotPackable(ValueError):
    """The history does not fit (too much of it, or times past the year 2255): PostgreSQL answers for the customer."""


def micros(at: datetime) -> int:
    """Whole microseconds since 1970 of an aware datetime."""
    return (at - _EPOCH) // _MICROSECOND


def instant(value: float) -> datetime:
    """The other way round, UTC."""
    return _EPOCH + timedelta(microseconds=int(value))


@dataclass(frozen=True, slots=True)
class PackedToken:
    """A live token. `group` names its card's marks. The order of tokens breaks ties."""

    pk: int
    network: str
    group: str
    not_before: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class History:
    """What is packed for one customer. `since`: from when on the marks of cards are complete, None for ever.

    `invoice_marks` by invoice; `more_invoices` if not all are there.
    """

    since: datetime | None
    tokens: Sequence[PackedToken]
    dead_tokens: int
    marks: Mapping[str, Sequence[AttemptMark]]
    invoice_marks: Mapping[int, Sequence[AttemptMark]]
    more_invoices: bool = False


def pack_history(history: History, version: int) -> bytes:
    """The budget value. Raises NotPackable."""
    if len(history.tokens) > MAX_TOKENS or len(history.invoice_marks) > MAX_INVOICES or history.dead_tokens > 0xFFFF:
        raise NotPackable("The customer has too many tokens or invoices.")
    pools = {group: _classes(marks) for group, marks in history.marks.items()}
    invoices = {pk: _network_classes(marks) for pk, marks in history.invoice_marks.items()}
    per_token = 8 + _TOKEN.size + _DETAIL.size
    position = 1 + _HEADER.size + per_token * len(history.tokens) + _INVOICE.size * len(invoices)
    lists = bytearray()
    places = {group: _append(lists, classes, position) for group, classes in pools.items()}
    owed = {pk: _append(lists, classes, position) for pk, classes in invoices.items()}
    size = position - 1 + len(lists)
    if size > MAX_BYTES:
        raise NotPackable("The customer's history is too long.")
    return b"".join(
        (
            _head(history, places.values(), size, len(invoices), version),
            struct.pack(f"<{len(history.tokens)}d", *(token.pk for token in history.tokens)),
            *(_token(token, places[token.group]) for token in history.tokens),
            *(_detail(token, places[token.group]) for token in history.tokens),
            *(_INVOICE.pack(pk, place.position) for pk, place in owed.items()),
            lists,
        )
    )


def _head(history: History, places: Iterable["_Place"], size: int, invoices: int, version: int) -> bytes:
    amounts = {place.first[:2] for place in places if place.declines}
    return _HEADER.pack(
        MAGIC,
        size,
        -_NEVER if history.since is None else _whole(history.since),
        len(history.tokens),
        history.dead_tokens,
        invoices,
        history.more_invoices,
        version,
        min((_expires(token) for token in history.tokens), default=_NEVER),
        max((_wait(token) for token in history.tokens), default=0),
        *(amounts.pop() if len(amounts) == 1 else (_MIXED, b"   ")),
    )


def pack_nothing(version: int) -> bytes:
    """The budget value of a customer whose history is not packable: it never reaches back far enough."""
    return _HEADER.pack(MAGIC, _HEADER.size, _NEVER, 0, 0, 0, 0, version, _NEVER, 0, _MIXED, b"   ")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the classes of a group stand; `declines`: how many of them are of declines; `first` of these, packed."""

    position: int
    declines: int
    first: tuple[float, bytes, int, int, int]


_Class = tuple[float, bytes, int, Sequence[int]]
_NONE = (0.0, b"   ", 0, 0, 0)


def _append(lists: bytearray, classes: Sequence[_Class], start: int) -> _Place:
    if len(classes) > 255:
        raise NotPackable("The card was tried with too many different amounts.")
    position = start + len(lists)
    lists.append(len(classes))
    declines, first = 0, _NONE
    for amount, currency, flags, times in classes:
        lists += _CLASS.pack(amount, currency, flags, len(times))
        if flags & _DECLINED:
            declines += 1
            if declines == 1:
                first = (amount, currency, flags, len(times), start + len(lists))
        lists += struct.pack(f"<{len(times)}d", *times)
    return _Place(position, declines, first)


def _token(token: PackedToken, place: _Place) -> bytes:
    _, _, flags, marks, first = place.first
    kind = 2 if place.declines > 1 or flags & _MORE else place.declines
    return _TOKEN.pack(_CODES[token.network], kind, marks, first)


def _detail(token: PackedToken, place: _Place) -> bytes:
    return _DETAIL.pack(_wait(token), _expires(token), place.position)


def _wait(token: PackedToken) -> float:
    return 0.0 if token.not_before is None else _whole(token.not_before)


def _expires(token: PackedToken) -> float:
    return _NEVER if token.expires_at is None else _whole(token.expires_at)


def _classes(marks: Iterable[AttemptMark]) -> list[_Class]:
    times: dict[tuple[float, bytes, bool], list[int]] = defaultdict(list)
    for mark in marks:
        known = mark.amount_minor is not None
        amount = float(mark.amount_minor or 0) if known else _ANY_AMOUNT
        times[amount, _currency(mark.currency) if known else b"   ", mark.declined].append(_whole(mark.at))
    return [_newest(*name, found) for name, found in times.items()]


def _network_classes(marks: Iterable[AttemptMark]) -> list[_Class]:
    times: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for mark in marks:
        times[_CODES[mark.network], mark.declined].append(_whole(mark.at))
    return [_newest(float(code), b"   ", declined, found) for (code, declined), found in times.items()]


def _newest(amount: float, currency: bytes, declined: bool, times: list[int]) -> _Class:
    more = _MORE if len(times) > KEEP_MARKS else 0
    return amount, currency, declined * _DECLINED | more, sorted(times)[-KEEP_MARKS:]


def _currency(code: str) -> bytes:
    return code.upper().encode("ascii", "replace")[:3].ljust(3)


def _whole(at: datetime) -> int:
    value = micros(at)
    if not 0 <= value < _EXACT:
        raise NotPackable("A time lies outside the years 1970 to 2255.")
    return value


# --- asking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """One selection: who asks (a transaction's public id), for what charge, from when on."""

    owner: str
    not_before: datetime
    amount_minor: int
    currency: str
    invoice_pk: int
    visa_limit: int
    limits: tuple[RuleOverride, ...] = ()


def pack_question(question: Question, horizon: timedelta) -> bytes:
    """The request; `horizon`: how far back marks of cards can matter. Raises NotPackable."""
    owner = question.owner.encode()
    not_before = _whole(question.not_before)
    head = _REQUEST.pack(
        not_before,
        not_before - horizon // _MICROSECOND,
        question.amount_minor,
        _currency(question.currency),
        question.invoice_pk,
        len(owner),
    )
    return head + owner + _packed_rules(question.visa_limit, question.limits, _era(question.not_before))


@cache
def _turns() -> list[datetime]:
    """The instants at which some rule begins or ends, in order."""
    rules = load_rules().rules
    return sorted({at for rule in rules for at in (rule.valid_from, rule.valid_to) if at is not None})


def _era(at: datetime) -> datetime | None:
    """The last of these instants that is not after `at`: between two of them the same rules hold and will hold."""
    place = bisect_right(_turns(), at)
    return _turns()[place - 1] if place else None


@lru_cache(maxsize=256)
def _packed_rules(visa_limit: int, limits: tuple[RuleOverride, ...], era: datetime | None) -> bytes:
    directory, body = bytearray(), bytearray()
    for network in _CODES:
        rules = [
            _from_now_on(rule, era)
            for rule in load_rules().for_network(network, visa_limit=visa_limit, overrides=limits)
            if rule.valid_to is None or era is None or rule.valid_to > era
        ]
        plain = len(rules) <= 2 and all(map(_plain, rules))
        position = _NETWORK.size * len(_CODES) + len(body)
        directory += _NETWORK.pack(plain, *_flat(rules, 0), *_flat(rules, 1), position)
        if not plain:
            body += bytes((len(rules),)) + b"".join(map(_rule, rules))
    return bytes(directory + body)


def _from_now_on(rule: Rule, era: datetime | None) -> Rule:
    """Searches only go forward, so a rule that has begun need not say when."""
    begun = rule.valid_from is not None and era is not None and rule.valid_from <= era
    return replace(rule, valid_from=None) if begun else rule


def _plain(rule: Rule) -> bool:
    dated = rule.valid_from is not None or rule.valid_to is not None
    return not dated and rule.window is not None and rule.key is not Key.INVOICE and rule.counts is Counts.DECLINES


def _flat(rules: Sequence[Rule], place: int) -> tuple[bool, int, int]:
    if place >= len(rules):
        return False, _NO_LIMIT, 0
    rule = rules[place]
    return rule.key is Key.CARD_AMOUNT, rule.limit, _window(rule)


def _rule(rule: Rule) -> bytes:
    return _RULE.pack(
        _KEYS[rule.key],
        rule.counts is Counts.ALL,
        rule.limit,
        _window(rule),
        _whole(rule.valid_from) if rule.valid_from else 0,
        _whole(rule.valid_to) if rule.valid_to else 0,
    )


def _window(rule: Rule) -> int:
    """Whole hours, as the rule file writes them; 0 is a calendar month."""
    return rule.window // timedelta(hours=1) if rule.window is not None else 0


# --- the answer -----------------------------------------------------------------------------------------------------


class Reply(StrEnum):
    """What the script found; from `COLD` on PostgreSQL must be asked."""

    ALL = "A"
    RANKED = "R"
    LOCKED = "L"
    DEAD = "D"
    COLD = "C"
    UNREADABLE = "X"
    SHORT = "S"


def unpack_ranking(reply: bytes, not_before: datetime) -> list[tuple[int, datetime]]:
    """Primary key and earliest instant of each token of an `A` or `R` reply, best first."""
    if reply[0] == ord(Reply.ALL):
        return [(int(pk), not_before) for pk in struct.unpack_from(f"<{len(reply) // 8}d", reply, 1)]
    ready, waiting = reply[1], reply[2]
    count = ready + waiting
    keys_at = 3 + count + 8 * waiting
    keys = struct.unpack_from(f"<{(len(reply) - keys_at) // 8}d", reply, keys_at)
    instants = struct.unpack_from(f"<{waiting}d", reply, 3 + count)
    ranked = [(int(keys[place - 1]), not_before) for place in reply[3 : 3 + ready]]
    later = zip(reply[3 + ready : 3 + count], instants, strict=True)
    return ranked + [(int(keys[place - 1]), instant(at)) for place, at in later]
