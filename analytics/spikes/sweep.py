"""The sweep behind spike alerts: open an incident with one alert, follow its size, end it with one word to all who
heard of it.

What happens is planned first, from reads only; a dry run shows the plan.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import structlog
from django.conf import settings
from django.db import transaction
from django.urls import reverse

from accounts.models import Merchant
from analytics.models import Incident
from analytics.spikes.cause import cause_of, cause_words
from analytics.spikes.detect import (
    GUARD,
    LASTING,
    LOOK_BACK,
    RESOLUTION,
    Baseline,
    Finding,
    Limits,
    Subject,
    between,
    group,
    hour_of,
    judge,
    learn,
    over_since,
)
from analytics.spikes.gather import Watched, cells_between, recent_failures, watched
from analytics.spikes.words import incident_text, subject_name
from notifications.services.alerts import alert_close, alert_raise

log = structlog.get_logger()
KIND = "spike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do with one incident: open, grow or end. `incident_pk` is None for a new one."""

    what: str
    subject: Subject
    name: str
    also: tuple[Subject, ...]
    started_at: datetime
    ended_at: datetime | None
    attempts: int
    failed: int
    expected: float
    cause: str
    lasting: bool = False
    incident_pk: int | None = None

    @property
    def text(self) -> str:
        """The alert's sentences."""
        return incident_text(
            name=self.name,
            started_at=self.started_at,
            ended_at=self.ended_at,
            attempts=self.attempts,
            failed=self.failed,
            expected=self.expected,
            cause=self.cause,
            lasting=self.lasting,
        )


@dataclass(slots=True)
class SpikeCounts:
    """Incidents `opened`, still `going` on and `ended` in this sweep."""

    opened: int = 0
    going: int = 0
    ended: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def limits() -> Limits:
    return Limits(failures=settings.SPIKE_MIN_FAILURES, rise=settings.SPIKE_MIN_RISE / 100)


def spikes_sweep(*, now: datetime, keep_going: Callable[[], bool] = lambda: True) -> SpikeCounts:
    """Look at every merchant. Two sweeps at once do no harm: an incident can be opened and ended only once."""
    counts = SpikeCounts()
    for merchant in Merchant.objects.order_by("pk"):
        if not keep_going():
            break
        for step in spikes_plan(merchant, now=now):
            _carry_out(merchant, step, counts, now)
    return counts


def spikes_plan(merchant: Merchant, *, now: datetime) -> list[Step]:
    """What the sweep would do at this merchant now. Writes nothing."""
    return _Look(merchant, now).steps()


class _Look:
    """One merchant at one instant."""

    def __init__(self, merchant: Merchant, now: datetime) -> None:
        self.merchant, self.now, self.limits = merchant, now, limits()
        self.since = hour_of(now - GUARD)
        self.watched: Watched = watched(merchant, now)
        self.past = list(Incident.objects.filter(merchant=merchant, started_at__gte=now - 2 * LOOK_BACK))
        self.open = [one for one in self.past if one.ended_at is None]
        self._baselines: dict[tuple[Subject, datetime], Baseline | None] = {}

    def baseline(self, subject: Subject, started_at: datetime) -> Baseline | None:
        """Learnt before `started_at` and the hours in question, without what was an incident of any subject; a lasting
        one is the new normal."""
        until = min(started_at, self.since)
        key = subject, until
        if key not in self._baselines:
            lasting = [one.started_at for one in self.past if one.lasting and subject in one.subjects]
            self._baselines[key] = learn(
                self.watched.series.get(subject, {}),
                since=max([until - LOOK_BACK, *lasting]),
                until=until,
                skip=[(one.started_at, one.ended_at or self.now) for one in self.past if not one.lasting],
            )
        return self._baselines[key]

    def steps(self) -> list[Step]:
        findings = self._findings()
        starts = [*(one.started_at for one in findings), *(one.started_at for one in self.open)]
        if not starts:
            return []
        cells = cells_between(self.merchant, min(starts), self.now)
        known = {one.subject: one for one in self.open}
        groups = group(findings, known, cells)
        steps = [self._follow(one, groups.get(one.subject, [])) for one in self.open]
        steps += [self._new(members) for leader, members in groups.items() if leader not in known]
        return steps

    def _findings(self) -> list[Finding]:
        found = []
        for subject, hours in self.watched.series.items():
            if recent_failures(hours, self.since) < self.limits.failures:
                continue
            baseline = self.baseline(subject, self.since)
            finding = judge(subject, hours, baseline, now=self.now, limits=self.limits) if baseline else None
            if finding is not None:
                found.append(finding)
        return found

    def _new(self, members: Sequence[Finding]) -> Step:
        also = [one.subject for one in members[1:]]
        return self._step("open", members[0].subject, also, min(one.started_at for one in members))

    def _follow(self, incident: Incident, members: Sequence[Finding]) -> Step:
        subject, started_at = incident.subject, incident.started_at
        also = [*incident.also_subjects, *(one.subject for one in members)]
        if self.now - started_at >= LASTING:
            ended = self._step("end", subject, also, started_at, incident=incident, ended_at=hour_of(self.now))
            return replace(ended, lasting=True)
        hours, baseline = self.watched.series.get(subject, {}), self.baseline(subject, started_at)
        over = None
        if baseline is not None and not members:
            over = over_since(hours, baseline, started_at=started_at, now=self.now, limits=self.limits)
        return self._step("end" if over else "grow", subject, also, started_at, incident=incident, ended_at=over)

    def _step(
        self,
        what: str,
        subject: Subject,
        also: Sequence[Subject],
        started_at: datetime,
        *,
        incident: Incident | None = None,
        ended_at: datetime | None = None,
    ) -> Step:
        """The incident as it stands now; `ended_at` is the first hour that is no longer part of it."""
        end = self.now if ended_at is None else ended_at - RESOLUTION
        count = between(self.watched.series.get(subject, {}), started_at, end)
        baseline = self.baseline(subject, started_at)
        cause = cause_of(cells_between(self.merchant, started_at, end), subject, self._usual(started_at, end))
        return Step(
            what=what,
            subject=subject,
            name=subject_name(subject, self.watched.connections),
            also=tuple(dict.fromkeys(one for one in also if one != subject)),
            started_at=started_at,
            ended_at=ended_at,
            attempts=count.attempts,
            failed=count.failed,
            expected=baseline.expected(count) if baseline else 0.0,
            cause=cause_words(cause, subject, connections=self.watched.connections, countries=self.watched.countries),
            incident_pk=incident.pk if incident else None,
        )

    def _usual(self, started_at: datetime, end: datetime) -> dict[Subject, float]:
        """The usual share of failures of every subject, for its attempts since the start."""
        shares = {}
        for subject, hours in self.watched.series.items():
            count, baseline = between(hours, started_at, end), self.baseline(subject, started_at)
            if baseline is not None and count.failed:
                shares[subject] = baseline.expected(count) / count.attempts
        return shares


@transaction.atomic
def _carry_out(merchant: Merchant, step: Step, counts: SpikeCounts, now: datetime) -> None:
    facts = {
        "also": [[one.dimension.value, one.key] for one in step.also],
        "attempts": step.attempts,
        "failed": step.failed,
        "expected": step.expected,
        "cause": step.cause[:500],
        "ended_at": step.ended_at,
        "lasting": step.lasting,
        "seen_at": now,
    }
    if step.what == "open":
        incident, new = Incident.objects.get_or_create(
            merchant=merchant,
            dimension=step.subject.dimension,
            key=step.subject.key,
            ended_at=None,
            defaults={**facts, "name": step.name[:120], "started_at": step.started_at, "found_at": now},
        )
        if new:
            link = reverse("dashboard-incident", args=[incident.public_id])
            alert_raise(merchant_pk=merchant.pk, kind=KIND, key=incident.public_id, text=step.text, link=link, now=now)
            counts.opened += 1
            log.warning("spike_opened", merchant=merchant.public_id, incident=incident.public_id)
        return
    known = Incident.objects.select_for_update(no_key=True).filter(pk=step.incident_pk or 0, ended_at=None).first()
    if known is None:
        return
    Incident.objects.filter(pk=known.pk).update(**facts)
    if step.ended_at is None:
        counts.going += 1
        return
    alert_close(merchant_pk=merchant.pk, kind=KIND, key=known.public_id, text=step.text, now=now)
    counts.ended += 1
    log.info("spike_ended", merchant=merchant.public_id, incident=known.public_id)
