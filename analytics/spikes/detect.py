"""When do more payments fail than usual? Counts per hour in, findings out. Pure: no clock, no rows.

A subject (a connection, the country of issue, a decline code) is compared with its own last weeks, first attempts and
later ones apart: retries fail more often, and a morning on which many retries are due is no incident. The failures
expected in a window are E = sum of n * p over both. Rates wander from hour to hour by themselves: how much is learnt
as the intra-class correlation r of a beta-binomial count, so that n attempts weigh as n / (1 + (n - 1) r). The score
is the signed root of the log likelihood ratio (Wilks), which keeps its tail at small counts where a z-score does not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import log, sqrt
from typing import Final

HOUR: Final = timedelta(hours=1)
RESOLUTION: Final = timedelta(microseconds=1)
LOOK_BACK: Final = timedelta(days=28)
# What is judged is not learnt from.
GUARD: Final = timedelta(hours=12)
_LEAST_SPAN = timedelta(days=7)
_LEAST_ATTEMPTS = 100
# Windows, in hours with the one that is running: a big merchant is warned within minutes, a small one by the long one.
_WINDOWS = (1, 3, 6, 12)
# Every subject is asked again every few minutes. In simulated normal weeks (tests/analytics/test_spikes_measured.py) 4
# cost an alarm in seven merchant-weeks, 4.5 none in fourteen; 5 finds incidents later for nothing.
_SCORE = 4.5
# An hour with fewer attempts says nothing by itself.
_TELLING = 3
_BAD_SCORE = 1.5
_CALM_HOURS, _CALM_ATTEMPTS, _CALM_LOOK = 2, 10, 24
# An incident that lasts longer than this is the new normal.
LASTING: Final = timedelta(days=7)
# Findings that share this much of the smaller one's failures are one incident.
_SAME = 0.5
_CHUNK = 6
_TRIMMED = 0.05


class Dimension(StrEnum):
    CONNECTION = "connection"
    COUNTRY = "country"
    CODE = "code"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What is watched: a connection (its primary key), a country of issue (ISO 3166) or a provider's decline code."""

    dimension: Dimension
    key: str


@dataclass(slots=True)
class Count:
    """Attempts that have an answer, or should have had one, and those that failed; `again`: not the invoice's first."""

    first: int = 0
    first_failed: int = 0
    again: int = 0
    again_failed: int = 0

    @property
    def attempts(self) -> int:
        return self.first + self.again

    @property
    def failed(self) -> int:
        return self.first_failed + self.again_failed

    def add(self, other: "Count") -> None:
        self.first += other.first
        self.first_failed += other.first_failed
        self.again += other.again
        self.again_failed += other.again_failed


Hours = Mapping[datetime, Count]


@dataclass(frozen=True, slots=True)
class Limits:
    """An incident needs so many failed attempts, and a share that is so much (0..1) above the usual one."""

    failures: int = 10
    rise: float = 0.10


@dataclass(frozen=True, slots=True)
class Baseline:
    """The usual share of failures among first and later attempts, and the correlation within an hour."""

    first: float
    again: float
    correlation: float

    def expected(self, count: Count) -> float:
        return count.first * self.first + count.again * self.again

    def rise(self, count: Count) -> float:
        """How far the share of failures lies above the usual one for this mix of attempts; 0 without attempts."""
        return (count.failed - self.expected(count)) / count.attempts if count.attempts else 0.0

    def score(self, count: Count) -> float:
        """How unlikely so many failures are by chance, in standard deviations; never negative."""
        attempts, failed, expected = count.attempts, count.failed, self.expected(count)
        if not attempts or failed <= expected or expected <= 0 or expected >= attempts:
            return 0.0
        ratio = failed * log(failed / expected)
        if failed < attempts:
            ratio += (attempts - failed) * log((attempts - failed) / (attempts - expected))
        return sqrt(2 * max(0.0, ratio) / (1 + self.correlation * (attempts - 1)))


@dataclass(frozen=True, slots=True)
class Finding:
    """A subject that fails more than usual: since when, how much, against which baseline."""

    subject: Subject
    started_at: datetime
    attempts: int
    failed: int
    expected: float
    score: float


def learn(
    hours: Hours, *, since: datetime, until: datetime, skip: Sequence[tuple[datetime, datetime]]
) -> Baseline | None:
    """The baseline of [since, until) without the periods `skip`; None while there is too little to learn from."""
    chunks: dict[int, Count] = {}
    earliest = None
    for hour, count in hours.items():
        if hour < since or hour >= until or any(start <= hour < end for start, end in skip):
            continue
        earliest = hour if earliest is None else min(earliest, hour)
        chunks.setdefault(int(hour.timestamp()) // 3600 // _CHUNK, Count()).add(count)
    total = sum_of(chunks.values())
    if earliest is None or until - earliest < _LEAST_SPAN or total.attempts < _LEAST_ATTEMPTS:
        return None
    plain = Baseline(_share(total.first_failed, total.first), _share(total.again_failed, total.again), 0.0)
    return Baseline(plain.first, plain.again, _correlation(plain, list(chunks.values())))


def _share(failed: int, attempts: int) -> float:
    return (failed + 0.5) / (attempts + 1)


def _correlation(plain: Baseline, chunks: list[Count]) -> float:
    """By moments, without the most unusual chunks: an incident that nobody noticed must not excuse the next one."""
    rows = []
    for count in chunks:
        expected = plain.expected(count)
        variance = count.first * plain.first * (1 - plain.first) + count.again * plain.again * (1 - plain.again)
        rows.append(((count.failed - expected) ** 2, variance, count.attempts))
    rows.sort(key=lambda row: row[0] / row[1])
    kept = rows[: len(rows) - int(len(rows) * _TRIMMED)]
    weight = sum(variance * (attempts - 1) for _, variance, attempts in kept)
    surplus = sum(square - variance for square, variance, _ in kept)
    return min(1.0, max(0.0, surplus / weight)) if weight > 0 else 0.0


def sum_of(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total.add(count)
    return total


def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def judge(subject: Subject, hours: Hours, baseline: Baseline, *, now: datetime, limits: Limits) -> Finding | None:
    """The clearest of the windows that end now, if it is clear enough."""
    best: tuple[float, int] | None = None
    total = Count()
    for back in range(_WINDOWS[-1]):
        total.add(hours.get(hour_of(now) - back * HOUR, _NONE))
        if back + 1 not in _WINDOWS or total.failed < limits.failures or baseline.rise(total) < limits.rise:
            continue
        score = baseline.score(total)
        if score >= _SCORE and (best is None or score > best[0]):
            best = score, back
    if best is None:
        return None
    started_at = _start(hours, baseline, hour_of(now) - best[1] * HOUR, now, limits)
    span = between(hours, started_at, now)
    return Finding(subject, started_at, span.attempts, span.failed, baseline.expected(span), best[0])


_NONE = Count()


def _start(hours: Hours, baseline: Baseline, first: datetime, now: datetime, limits: Limits) -> datetime:
    """The first bad hour of the window; further back as long as hours were bad, too."""
    hour = first
    while hour < hour_of(now) and not _bad(hours.get(hour, _NONE), baseline, limits):
        hour += HOUR
    while _bad(hours.get(hour - HOUR, _NONE), baseline, limits) and hour > now - GUARD:
        hour -= HOUR
    return hour


def _bad(count: Count, baseline: Baseline, limits: Limits) -> bool:
    """Too unusual for an hour of peace, though not for an alert by itself."""
    if count.attempts < _TELLING or baseline.rise(count) < limits.rise / 2:
        return False
    return baseline.score(count) >= _BAD_SCORE


def between(hours: Hours, start: datetime, end: datetime) -> Count:
    """Everything from the hour `start` to the hour of `end`, which is included."""
    return sum_of(count for hour, count in hours.items() if start <= hour <= end)


def over_since(
    hours: Hours, baseline: Baseline, *, started_at: datetime, now: datetime, limits: Limits
) -> datetime | None:
    """Since when an incident is over: from which hour on there was nothing unusual, over two hours and ten attempts.

    None while it goes on. A subject with fewer attempts than that in a day has ended too: nobody can tell any more.
    """
    calm, since = Count(), hour_of(now)
    for back in range(_CALM_LOOK):
        hour = hour_of(now) - back * HOUR
        if hour < started_at:
            return None
        count = hours.get(hour, _NONE)
        if _bad(count, baseline, limits):
            return None
        calm.add(count)
        if count.attempts:
            since = hour
        if back + 1 >= _CALM_HOURS and calm.attempts >= _CALM_ATTEMPTS:
            return since if baseline.rise(calm) < limits.rise / 2 else None
    return since


@dataclass(frozen=True, slots=True)
class Cell:
    """Attempts since an incident began that share connection, country, code and category."""

    connection: str
    country: str
    code: str
    category: str
    attempts: int
    failed: int

    def belongs(self, subject: Subject) -> bool:
        match subject.dimension:
            case Dimension.CONNECTION:
                return self.connection == subject.key
            case Dimension.COUNTRY:
                return self.country == subject.key
            case Dimension.CODE:
                return self.code == subject.key


def group(
    findings: Iterable[Finding], open_subjects: Iterable[Subject], cells: Sequence[Cell]
) -> dict[Subject, list[Finding]]:
    """One entry per incident, by its leading subject: the open incidents first, then the clearest findings.

    What shares half of its failures with a leader is the same incident seen from another side.
    """
    found: dict[Subject, list[Finding]] = {subject: [] for subject in open_subjects}
    for finding in sorted(findings, key=lambda one: (-one.score, one.subject)):
        leader = next((one for one in found if _same(one, finding.subject, cells)), finding.subject)
        found.setdefault(leader, []).append(finding)
    return {leader: members for leader, members in found.items() if members}


def _same(one: Subject, other: Subject, cells: Sequence[Cell]) -> bool:
    if one == other:
        return True
    ours = sum(cell.failed for cell in cells if cell.belongs(one))
    theirs = sum(cell.failed for cell in cells if cell.belongs(other))
    shared = sum(cell.failed for cell in cells if cell.belongs(one) and cell.belongs(other))
    return shared > 0 and shared >= _SAME * min(ours, theirs)
