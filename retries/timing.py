"""When the next try is: delay strategies by name, and quiet hours in the customer's time zone.

Pure: no clock, no randomness. Jitter is drawn from a seed string, so that the same case, retry and seed
always give the same instant and a preview shows what will happen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from recovery_site.common.durations import parse_duration

LONGEST_DELAY = timedelta(days=365)
_STEP = timedelta(microseconds=1)
_DRAWS = 2**64


class TimingError(ValueError):
    """A strategy or its parameters make no sense. `field` names the parameter, empty for the strategy."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Strategy(Protocol):
    """A way to space tries. Plug-ins register a builder under a name with `register_strategy`."""

    def delay(self, attempt_number: int, seed: str) -> timedelta:
        """Time from the failure before it to automatic try number `attempt_number` (1 = first retry)."""


Builder = Callable[[Mapping[str, object]], Strategy]
_BUILDERS: dict[str, Builder] = {}


def register_strategy(name: str, builder: Builder) -> None:
    """Make a strategy available to policies. Raises TimingError if another one has the name already."""
    if _BUILDERS.get(name, builder) is not builder:
        raise TimingError(f"There is a timing strategy {name!r} already; choose another name.")
    _BUILDERS[name] = builder


def strategy_names() -> tuple[str, ...]:
    """Names that policies may use, sorted."""
    return tuple(sorted(_BUILDERS))


def build_strategy(name: str, parameters: Mapping[str, object]) -> Strategy:
    """The strategy of that name with its parameters as a policy writes them. Raises TimingError."""
    builder = _BUILDERS.get(name)
    if builder is None:
        raise TimingError(f"There is no timing strategy {name!r}; use one of {', '.join(strategy_names())}.")
    return builder(parameters)


def next_delay(strategy: Strategy, attempt_number: int, seed: str) -> timedelta:
    """Time from a failure to automatic try `attempt_number` (1 = first retry), never negative.

    Raises TimingError for a number below 1 or a strategy that answers with a negative delay.
    """
    if attempt_number < 1:
        raise TimingError(f"Tries are numbered from 1; there is no try number {attempt_number}.")
    delay = strategy.delay(attempt_number, seed)
    if delay < timedelta():
        raise TimingError(f"The strategy {strategy!r} answered with a negative delay; correct it.")
    return min(delay, LONGEST_DELAY)


@dataclass(frozen=True, slots=True)
class Fixed:
    """The given delays in turn; the last one repeats. `jitter` lengthens each by up to that share."""

    delays: tuple[timedelta, ...]
    jitter: Decimal = Decimal(0)

    def delay(self, attempt_number: int, seed: str) -> timedelta:
        chosen = self.delays[min(attempt_number, len(self.delays)) - 1]
        return with_jitter(chosen, self.jitter, seed, attempt_number)


@dataclass(frozen=True, slots=True)
class Exponential:
    """`base`, then each delay `factor` times the one before, none above `cap`; jitter comes on top."""

    base: timedelta
    factor: Decimal
    cap: timedelta
    jitter: Decimal = Decimal(0)

    def delay(self, attempt_number: int, seed: str) -> timedelta:
        chosen = self.base
        for _ in range(attempt_number - 1):
            if chosen >= self.cap or self.factor == 1:
                break
            chosen = _times(chosen, self.factor, self.cap)
        return with_jitter(min(chosen, self.cap), self.jitter, seed, attempt_number)


def with_jitter(delay: timedelta, share: Decimal, seed: str, attempt_number: int) -> timedelta:
    """`delay` lengthened by a drawn part of `share` of it: in [delay, delay * (1 + share)], the same for each
    seed."""
    room = int(Decimal(delay // _STEP) * share)
    if room == 0:
        return delay
    drawn = int.from_bytes(sha256(f"{seed}\n{attempt_number}".encode()).digest()[:8], "big")
    return delay + _STEP * (room * drawn // _DRAWS)


def _times(delay: timedelta, factor: Decimal, cap: timedelta) -> timedelta:
    product = Decimal(delay // _STEP) * factor
    return cap if product >= cap // _STEP else _STEP * int(product)


def duration_of(value: object, field: str) -> timedelta:
    """A duration of a policy: `3h`, `30m`, or `0s` for at once. Raises TimingError naming the field."""
    if not isinstance(value, str):
        raise TimingError(f"{value!r} is no duration; write it as text, like 30s, 5m, 3h or 14d.", field)
    if value.strip() in ("0s", "0m", "0h"):
        return timedelta()
    try:
        duration = parse_duration(value, name="the duration")
    except ValueError:
        raise TimingError(f"{value!r} is no duration; write it like 30s, 5m, 3h or 14d.", field) from None
    if duration > LONGEST_DELAY:
        raise TimingError(f"{value!r} is too long; the longest is {LONGEST_DELAY.days}d.", field)
    return duration


def _number_of(parameters: Mapping[str, object], field: str, default: str, low: int, high: int) -> Decimal:
    value = parameters.get(field, default)
    try:
        number = Decimal(str(value)) if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not low <= number <= high:
        raise TimingError(f"{field} is {value!r}; give a number from {low} to {high}.", field)
    return number


def _only(parameters: Mapping[str, object], known: Sequence[str]) -> None:
    for name in parameters:
        if name not in known:
            raise TimingError(f"This strategy has no parameter {name!r}; it takes {', '.join(known)}.", name)


def _build_fixed(parameters: Mapping[str, object]) -> Strategy:
    _only(parameters, ("delays", "jitter"))
    delays = parameters.get("delays")
    if not isinstance(delays, list | tuple) or not delays:
        raise TimingError('List the delays, like "delays": ["1m", "5m", "30m"].', "delays")
    parsed = tuple(duration_of(delay, f"delays/{index}") for index, delay in enumerate(delays))
    return Fixed(parsed, _number_of(parameters, "jitter", "0", 0, 1))


def _build_exponential(parameters: Mapping[str, object]) -> Strategy:
    _only(parameters, ("base", "factor", "cap", "jitter"))
    base = duration_of(parameters.get("base"), "base")
    cap = duration_of(parameters.get("cap"), "cap")
    if base <= timedelta():
        raise TimingError("base must be above zero, because zero never grows.", "base")
    if cap < base:
        raise TimingError("cap is shorter than base; make it at least as long.", "cap")
    factor = _number_of(parameters, "factor", "2", 1, 10)
    return Exponential(base, factor, cap, _number_of(parameters, "jitter", "0", 0, 1))


register_strategy("fixed", _build_fixed)
register_strategy("exponential", _build_exponential)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local times in [start, end) are quiet, over midnight if end comes before start; days not in `weekdays`
    (Monday is 0) are quiet all day."""

    start: time | None = None
    end: time | None = None
    weekdays: frozenset[int] = frozenset(range(7))

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise TimingError("Quiet hours need both a start and an end.", "start" if self.start is None else "end")
        if self.start is not None and self.start == self.end:
            raise TimingError("Quiet hours that start when they end are no hours; leave them out.", "end")
        if not self.weekdays or not self.weekdays <= frozenset(range(7)):
            raise TimingError("Allow at least one weekday, numbered 0 (Monday) to 6 (Sunday).", "weekdays")

    def is_quiet(self, local: datetime) -> bool:
        """Whether `local`, read in its own zone, is quiet."""
        if local.weekday() not in self.weekdays:
            return True
        if self.start is None or self.end is None:
            return False
        clock = local.time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end


def next_allowed_instant(at: datetime, zone: tzinfo, quiet: QuietHours | None) -> datetime:
    """The earliest instant, not before `at`, that is not quiet in `zone`; in UTC. Raises ValueError if `at`
    is naive.

    Exact across changes of the clock: an end that the clock skips counts from the moment of the jump, and an
    hour that happens twice is judged each time it happens.
    """
    if at.tzinfo is None:
        raise ValueError("at has no time zone; pass an aware UTC datetime.")
    at = at.astimezone(UTC)
    if quiet is None or not quiet.is_quiet(at.astimezone(zone)):
        return at
    first_day = at.astimezone(zone).date()
    for offset in range(-1, 9):
        day = first_day + timedelta(days=offset)
        for instant in sorted(_turning_points(day, zone, quiet)):
            if instant >= at and not quiet.is_quiet(instant.astimezone(zone)):
                return instant
    raise TimingError("These quiet hours leave no time at all; allow a weekday or shorten them.", "weekdays")


def _turning_points(day: date, zone: tzinfo, quiet: QuietHours) -> set[datetime]:
    """Every instant of the local day at which quiet can end: midnight, the end, and changes of the clock."""
    clocks = {time(), quiet.end or time()}
    points = {
        datetime.combine(day, clock, zone).replace(fold=fold).astimezone(UTC) for clock in clocks for fold in (0, 1)
    }
    low = datetime.combine(day, time(), zone).astimezone(UTC)
    high = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
    if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
        while high - low > _STEP:
            middle = low + (high - low) // 2
            if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
                low = middle
            else:
                high = middle
        points.add(high)
    return points


def customer_zone(name: str, default: str = "UTC") -> ZoneInfo:
    """The zone of that IANA name, or of `default` if the name is empty or nobody knows it."""
    for candidate in (name.strip(), default):
        try:
            return ZoneInfo(candidate)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")
