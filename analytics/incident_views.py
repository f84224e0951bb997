"""Pages of the incidents that spike alerts tell of."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from accounts.models import Merchant
from analytics.models import Incident
from analytics.selectors.incidents import incident_hours, incident_page, incident_rows
from analytics.spikes.words import subject_name
from analytics.views import cursor_of, member_page
from invoices.models import Connection
from recovery_site.common import clock
from recovery_site.common.address import address_check


@member_page
@require_safe
def incidents(request: HttpRequest, merchant: Merchant) -> HttpResponse:
    """Incidents, newest first."""
    before = cursor_of(request.GET.get("before", ""))
    address_check(request, before=before)
    page, base = incident_page(merchant, older_than=before), reverse("dashboard-incidents")
    context = {
        "merchant": merchant,
        "page": page,
        "newer_url": base if before else "",
        "older_url": f"{base}?before={page.older_than}" if page.older_than else "",
    }
    return render(request, "analytics/incidents.html", context)


@member_page
@require_safe
def incident(request: HttpRequest, merchant: Merchant, public_id: str) -> HttpResponse:
    """One incident with the hours around it."""
    found = Incident.objects.filter(merchant=merchant, public_id=public_id).select_related("merchant").first()
    if found is None:
        raise Http404("There is no such incident.")
    names = {str(one.pk): str(one) for one in Connection.objects.filter(merchant=merchant)}
    context = {
        "merchant": merchant,
        "incident": found,
        "hours": incident_hours(found, now=clock.now()),
        "also": [subject_name(subject, names) for subject in found.also_subjects],
        "rows": incident_rows(found),
    }
    return render(request, "analytics/incident.html", context)
