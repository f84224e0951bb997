"""Pages of the dashboards. Thin: read the address, call selectors, render in the merchant's time zone."""

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from math import ceil
from time import monotonic
from typing import Any, Concatenate, ParamSpec, cast
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from accounts.current import current_merchant
from accounts.models import Merchant, User
from analytics import presentation
from analytics.definitions import DEFINITIONS
from analytics.exports import INVOICE_COLUMNS, csv_lines, invoice_cells
from analytics.period import LENGTHS, length_from, period_of, zone_of
from analytics.reports import REPORTS, Report
from analytics.rollups.reading import Figures
from analytics.selectors.activity import recent_activity, upcoming_retries
from analytics.selectors.alerts import alert_page
from analytics.selectors.attempts import failures_by_day, recovered_by_number, top_decline_codes
from analytics.selectors.cases import cohorts, recovered_money, revenue_at_risk, time_to_recover
from analytics.selectors.forecast import expected_recoveries
from analytics.selectors.incidents import incidents_open
from analytics.selectors.invariants import Broken, must_be_zero
from analytics.selectors.invoices import filter_from, invoice_page, invoices_for_export
from analytics.selectors.operations import queue_health
from analytics.selectors.shell import shell_counts
from analytics.services import Forbidden, alerts_acknowledge
from analytics.words import CATEGORY_NAMES
from invoices.models import Connection
from invoices.states import InvoiceStatus
from recovery_site.common import clock
from recovery_site.common.address import address_check
from retries.states import CaseStatus, NextStep
from webhooks.outbound.catalogue import STREAM_NAMES

Rest = ParamSpec("Rest")
View = Callable[Concatenate[HttpRequest, Merchant, Rest], HttpResponseBase]


def member_page(view: View[Rest]) -> Callable[Concatenate[HttpRequest, Rest], HttpResponseBase]:
    """Log-in first, then the merchant of the request, then the view in that merchant's time zone.

    A polling fragment whose session has ended sends the whole page to the log-in instead of swapping it in.
    """

    @wraps(view)
    def page(request: HttpRequest, *args: Rest.args, **kwargs: Rest.kwargs) -> HttpResponseBase:
        if not request.user.is_authenticated:
            login = reverse("login")
            if request.headers.get("HX-Request"):
                return HttpResponseClientRedirect(login)
            after = urlencode({"next": request.get_full_path()})
            return redirect(f"{login}?{after}" if request.method == "GET" else login)
        merchant = current_merchant(request)
        with timezone.override(zone_of(merchant.timezone)):
            return view(request, merchant, *args, **kwargs)

    return cast(Callable[Concatenate[HttpRequest, Rest], HttpResponseBase], never_cache(page))


# The live parts are asked for again after this time, or after so many times what they took: a big merchant's dashboards
# left open must not keep the database busy.
_POLL_SECONDS = 5
_POLL_REST = 25


def cursor_of(text: str) -> int | None:
    """A cursor of the address; anything else means the first page."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


# What the overview looks at; the reports look at everything.
_OVERVIEW = ("segment", "code", "network", "number")


@member_page
@require_safe
def dashboard(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """The overview: everything a morning needs, from the live figures down to the distributions."""
    now = clock.now()
    period = period_of(length_from(request.GET.get("days", "")), now, zone_of(merchant.timezone))
    address_check(request, days=period.days)
    figures = Figures(merchant, period, facets=_OVERVIEW)
    failures = failures_by_day(figures)
    chart = presentation.failure_chart(failures)
    times = time_to_recover(figures)
    started = monotonic()
    parts = _live(figures)
    context = {
        **parts,
        "poll_seconds": max(_POLL_SECONDS, ceil(_POLL_REST * (monotonic() - started))),
        "stream_url": settings.STREAM_URL,
        "stream_names": " ".join(STREAM_NAMES),
        "lengths": LENGTHS,
        "report": None,
        "incidents": incidents_open(merchant),
        "failures": failures,
        "failure_chart": chart,
        "failure_rows": presentation.chart_rows(chart),
        "failure_legend": presentation.failure_legend(failures, period),
        "codes": presentation.code_lines(top_decline_codes(figures), period),
        "numbers": presentation.number_lines(recovered_by_number(figures)),
        "forecast": expected_recoveries(figures),
        "times": times,
        "time_lines": presentation.time_lines(times),
        "percentiles": [
            (name, presentation.percentile_text(days))
            for name, days in (
                ("Half within", times.median_days),
                ("75 % within", times.p75_days),
                ("90 % within", times.p90_days),
            )
        ],
    }
    return render(request, "analytics/dashboard.html", context)


@member_page
@require_safe
def live(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """The parts of the overview that are polled: tiles, activity, upcoming retries, health."""
    period = period_of(length_from(request.GET.get("days", "")), clock.now(), zone_of(merchant.timezone))
    return render(request, "analytics/live.html", {**_live(Figures(merchant, period, facets=_OVERVIEW)), "swap": True})


# The board reads every attempt of its period, which takes seconds where there are millions: the page does not wait for
# it, and it is not read again for each person who looks.
_BOARD_SECONDS = 60


@member_page
@require_safe
def board(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """The must-be-zero board, which the overview asks for once it is shown."""
    period = period_of(length_from(request.GET.get("days", "")), clock.now(), zone_of(merchant.timezone))

    def count() -> dict[str, int]:
        return {one.definition.key: one.count for one in must_be_zero(merchant, period)}

    key = f"board:{merchant.public_id}:{period.days}:{period.start.isoformat()}"
    found = cache.get_or_set(key, count, _BOARD_SECONDS) or count()
    lines = [Broken(DEFINITIONS[name], number) for name, number in found.items()]
    return render(request, "analytics/parts/board.html", {"board": lines, "period": period})


def _live(figures: Figures) -> dict[str, Any]:
    merchant, period = figures.merchant, figures.period
    risk = revenue_at_risk(figures)
    found = cohorts(figures)
    return {
        "merchant": merchant,
        "period": period,
        "now": period.end,
        "clock_speed": settings.CLOCK_SPEED if settings.CLOCK_SPEED != 1 else None,
        "risk": risk,
        "risk_blocks": presentation.risk_blocks(risk),
        "waiting": shell_counts(merchant),
        "waiting_customers": risk.cases(NextStep.CUSTOMER),
        "recovered": presentation.recovered_lines(recovered_money(figures), period),
        "overall": presentation.rate_line("All", found.overall),
        "currency_rates": [presentation.rate_line(*item) for item in sorted(found.by_currency.items())],
        "cohort_lines": presentation.cohort_lines(found, period),
        "activity": recent_activity(merchant),
        "upcoming": upcoming_retries(merchant),
        "health": queue_health(merchant, period.end),
    }


def _figures(request: HttpRequest, merchant: Merchant) -> Figures:
    """The period and the connection that the address asks for; an unknown connection means all."""
    period = period_of(length_from(request.GET.get("days", "")), clock.now(), zone_of(merchant.timezone))
    wanted = Connection.objects.filter(merchant=merchant, public_id=request.GET.get("connection", "")[:40]).first()
    return Figures(merchant, period, wanted.pk if wanted else None)


def _report(name: str) -> Report:
    try:
        return REPORTS[name]
    except KeyError:
        raise Http404("There is no report of this name.") from None


@member_page
@require_safe
def report(request: HttpRequest, merchant: Merchant, name: str) -> HttpResponse:
    """One report: its chart where it has one, and its tables."""
    found, figures = _report(name), _figures(request, merchant)
    chosen = figures.connections.get(figures.connection_pk or 0)
    address_check(request, days=figures.period.days, connection=chosen and chosen.public_id)
    context = {
        "merchant": merchant,
        "report": found,
        "period": figures.period,
        "now": figures.period.end,
        "lengths": LENGTHS,
        "connections": list(figures.connections.values()),
        "connection": chosen,
        "tables": [table(figures) for table in found.tables],
        "health": queue_health(merchant, figures.period.end) if name == "retries" else None,
    }
    if name == "failures":
        failures = failures_by_day(figures)
        chart = presentation.failure_chart(failures)
        context |= {
            "failures": failures,
            "failure_chart": chart,
            "failure_rows": presentation.chart_rows(chart),
            "failure_legend": presentation.failure_legend(failures, figures.period),
        }
    return render(request, "analytics/report.html", context)


@member_page
@require_safe
def report_export(request: HttpRequest, merchant: Merchant, name: str, key: str) -> StreamingHttpResponse:
    """One table of a report as CSV, as the page shows it; money has a line per currency."""
    figures = _figures(request, merchant)
    tables = (table(figures) for table in _report(name).tables)
    found = next((table for table in tables if table.key == key), None)
    if found is None:
        raise Http404("This report has no such table.")
    lines = csv_lines(found.csv_head, found.csv_rows)
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{key}-{figures.period.end:%Y%m%d}.csv"'
    return response


@member_page
@require_safe
def invoices(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """The invoice list; its filters are its address."""
    now, wanted = clock.now(), filter_from(request.GET.dict())
    before = cursor_of(request.GET.get("before", ""))
    address_check(request, **asdict(wanted), before=before)
    page = invoice_page(merchant, wanted, now=now, older_than=before)
    base = reverse("dashboard-invoices")
    context = {
        "merchant": merchant,
        "now": now,
        "wanted": wanted,
        "chips": [(text, f"{base}?{wanted.query(**{name: ''})}") for name, text in wanted.active],
        "kept": {name: value for name, value in asdict(wanted).items() if value and name not in _SHOWN_FIELDS},
        "page": page,
        "newer_url": f"{base}?{wanted.query()}" if before else "",
        "older_url": f"{base}?{wanted.query()}&before={page.older_than}" if page.older_than else "",
        "export_url": f"{reverse('dashboard-invoices-export')}?{wanted.query()}",
        "statuses": InvoiceStatus.choices,
        "cases": CaseStatus.choices,
        "steps": [choice for choice in NextStep.choices if choice[0] != NextStep.NONE],
        "categories": list(CATEGORY_NAMES.items()),
    }
    return render(request, "analytics/invoices.html", context)


# Filters with a control of their own; the others are kept as hidden fields and shown as chips.
_SHOWN_FIELDS = frozenset({"q", "status", "case", "next_step", "category"})


@member_page
@require_safe
def invoices_export(request: HttpRequest, merchant: Merchant) -> StreamingHttpResponse:
    """The filtered list as CSV, streamed."""
    now = clock.now()
    rows = invoices_for_export(merchant, filter_from(request.GET.dict()), now)
    response = StreamingHttpResponse(
        csv_lines(INVOICE_COLUMNS, (invoice_cells(row) for row in rows)),
        content_type="text/csv; charset=utf-8",
    )
    response["Content-Disposition"] = f'attachment; filename="invoices-{now:%Y%m%d-%H%M}.csv"'
    return response


@member_page
@require_safe
def alerts(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """Alerts, unread first by default."""
    unread_only = request.GET.get("show") != "all"
    before = cursor_of(request.GET.get("before", ""))
    address_check(request, show="unread" if unread_only else "all", before=before)
    page = alert_page(merchant, unread_only=unread_only, older_than=before)
    base, show = reverse("dashboard-alerts"), "" if unread_only else "show=all"
    context = {
        "merchant": merchant,
        "now": clock.now(),
        "unread_only": unread_only,
        "page": page,
        "newer_url": f"{base}?{show}" if before else "",
        "older_url": f"{base}?{show}&before={page.older_than}" if page.older_than else "",
    }
    return render(request, "analytics/alerts.html", context)


@member_page
@require_POST
def alerts_seen(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """Acknowledge the alerts named in the form."""
    pks = {pk for text in request.POST.getlist("alert")[:200] if (pk := cursor_of(text)) is not None}
    try:
        changed = alerts_acknowledge(merchant=merchant, alert_pks=pks, user=cast(User, request.user), now=clock.now())
    except Forbidden as error:
        raise PermissionDenied(error.message) from error
    messages.success(request, f"{changed} alert{'' if changed == 1 else 's'} acknowledged.")
    back = request.POST.get("back", "")
    safe = url_has_allowed_host_and_scheme(back, allowed_hosts=None) and back.startswith("/")
    return redirect(back if safe else reverse("dashboard-alerts"))
