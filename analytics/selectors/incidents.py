"""Incidents for people: the list, one with its hours, and how many are open."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from django.utils import timezone

from accounts.models import Merchant
from analytics.charts import ColumnChart, Series, column_chart
from analytics.models import Incident
from analytics.selectors.invoices import InvoiceFilter
from analytics.spikes.detect import HOUR, Count, Dimension, hour_of
from analytics.spikes.gather import watched
from invoices.models import Connection

PAGE = 25
# Shown before an incident, for comparison, and after its end.
_BEFORE, _AFTER = timedelta(hours=18), timedelta(hours=6)
_MOST_HOURS = 96


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """One page, newest first; `older_than` is the cursor of the next page, None at the end."""

    incidents: tuple[Incident, ...]
    older_than: int | None


def incident_page(merchant: Merchant, *, older_than: int | None, size: int = PAGE) -> IncidentPage:
    """A page of the merchant's incidents by descending primary key; one query."""
    found = Incident.objects.filter(merchant=merchant)
    if older_than is not None:
        found = found.filter(pk__lt=older_than)
    rows = list(found.order_by("-pk")[: size + 1])
    shown = tuple(rows[:size])
    return IncidentPage(shown, shown[-1].pk if len(rows) > size else None)


def incidents_open(merchant: Merchant) -> list[Incident]:
    """What is going on now, oldest first; at most a handful."""
    return list(Incident.objects.filter(merchant=merchant, ended_at=None).order_by("started_at")[:5])


@dataclass(frozen=True, slots=True)
class HourLine:
    at: datetime
    attempts: int
    failed: int
    within: bool


@dataclass(frozen=True, slots=True)
class IncidentHours:
    """The subject's hours around an incident, as a chart and as a table."""

    chart: ColumnChart
    lines: tuple[HourLine, ...]


def incident_hours(incident: Incident, *, now: datetime) -> IncidentHours:
    """From 18 hours before the start to six after the end, at most four days: the beginning of longer ones."""
    first = hour_of(incident.started_at - _BEFORE)
    last = min(now, (incident.ended_at or now) + _AFTER, first + _MOST_HOURS * HOUR)
    days = ceil((last - first) / timedelta(days=1)) + 1
    hours = watched(incident.merchant, last, days=days).series.get(incident.subject, {})
    count = ceil((last - first) / HOUR)
    lines = tuple(_line(first + number * HOUR, hours.get(first + number * HOUR), incident) for number in range(count))
    series = (
        Series("usual", "Failed as before", tuple(0 if line.within else line.failed for line in lines)),
        Series("incident", "Failed in the incident", tuple(line.failed if line.within else 0 for line in lines)),
        Series("passed", "Other attempts", tuple(line.attempts - line.failed for line in lines)),
    )
    return IncidentHours(column_chart([_label(line.at) for line in lines], series), lines)


def _line(at: datetime, count: Count | None, incident: Incident) -> HourLine:
    known = count or Count()
    within = at >= incident.started_at and (incident.ended_at is None or at < incident.ended_at)
    return HourLine(at, known.attempts, known.failed, within)


def _label(at: datetime) -> str:
    local = timezone.localtime(at)
    return f"{local.day} {local:%b %H:%M}"


def incident_rows(incident: Incident) -> str:
    """The address parameters of invoices with such failures in the last week."""
    wanted = InvoiceFilter(failed="7")
    match incident.subject.dimension:
        case Dimension.CODE:
            return wanted.query(code=incident.key)
        case Dimension.COUNTRY:
            return wanted.query(country=incident.key)
        case Dimension.CONNECTION:
            account = Connection.objects.filter(merchant=incident.merchant_id, pk=incident.key).first()
            return wanted.query(connection=account.public_id if account else "")
