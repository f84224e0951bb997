"""Endpoints and the inbox. Secrets are never shown; a failed item can be replayed."""

import json

from django.contrib import admin, messages

from accounts.admin.base import LIST_LIMIT, MemberFilter, TenantAdmin, badge, clipped, column, pretty, reason_of, report
from accounts.states import Role
from invoices.services.ledger import Stamp
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.selectors import inbox_events
from webhooks.services import inbox_replay, inbox_replay_all
from webhooks.states import InboxStatus


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(TenantAdmin):
    list_display = ("address", "merchant", "connection", "enabled", "created_at")
    list_filter = ("provider", "enabled", ("merchant", MemberFilter), ("connection", MemberFilter))
    list_select_related = ("merchant", "connection")
    exclude = ("secrets_encrypted",)
    readonly_fields = ("address", "created_at")

    @column("Address")
    def address(self, endpoint):
        return f"/webhooks/{endpoint.provider}/{endpoint.uuid}/"


@admin.register(InboxEvent)
class InboxEventAdmin(TenantAdmin):
    ordering = ("-pk",)
    list_display = ("event_type", "state", "received_at", "why", "provider_event_id", "attempts", "merchant")
    list_filter = ("status", ("merchant", MemberFilter))
    list_select_related = ("merchant",)
    exclude = ("body",)
    readonly_fields = ("body_shown",)
    search_exact = ("provider_event_id",)
    actions = ("replay", "replay_failed")

    def get_search_results(self, request, queryset, search_term):
        """The provider's id of the event, or of the invoice or charge that it is about: at the person's endpoints, with
        which the indexes begin; waiting items have one of their own."""
        term = search_term.strip()
        if not term or "\x00" in term or len(term) > 300:
            return (queryset.none() if term else queryset), False
        endpoints = list(
            WebhookEndpointAdmin(WebhookEndpoint, self.admin_site).get_queryset(request).values_list("pk", flat=True)
        )
        rows = InboxEvent.objects.filter(endpoint__in=endpoints)
        about = rows.filter(order_key=term)
        waiting = about.filter(status=InboxStatus.RECEIVED)
        ways = (rows.filter(provider_event_id=term), waiting, about.exclude(status=InboxStatus.RECEIVED))
        found = {pk for way in ways for pk in way.values_list("pk", flat=True)[:LIST_LIMIT]}
        return queryset.filter(pk__in=found), False

    @column("Status")
    def state(self, event):
        return badge("inbox", event.status)

    @column("Reason")
    def why(self, event):
        return clipped(event.reason)

    @column("Body")
    def body_shown(self, event):
        try:
            return pretty(json.loads(event.body))
        except ValueError:
            return event.body

    @admin.action(description="Replay …", permissions=["act"])
    def replay(self, request, queryset):
        rows = self.few(request, queryset, Role.SUPPORT)
        if rows is None:
            return None
        page = self.confirm(
            request,
            rows,
            action="replay",
            title="Replay inbox events",
            button="Replay them",
            describe=lambda event: (
                "Is already waiting; nothing changes."
                if event.status == InboxStatus.RECEIVED
                else "Runs again through the same handler; what is known already changes nothing."
            ),
        )
        if page is not None:
            return page
        stamp = Stamp(actor=f"user:{request.user.pk}", cause=f"staff: {reason_of(request)}", now=clock.now())
        done, refused = 0, []
        for event in rows:
            try:
                inbox_replay(event_pk=event.pk, stamp=stamp)
            except RecoveryError as error:
                refused.append(f"{event}: {error.message}")
            else:
                self.log_change(request, event, f"Replayed: {reason_of(request)}")
                done += 1
        report(self, request, done, refused)
        return None

    @admin.action(description="Replay everything that failed at these merchants …", permissions=["act"])
    def replay_failed(self, request, queryset):
        """However many there are; the selected rows only say of which merchants."""
        rows = self.few(request, queryset, Role.SUPPORT)
        if rows is None:
            return None
        merchants = list({event.merchant_id: event.merchant for event in rows}.values())
        page = self.confirm(
            request,
            rows,
            action="replay_failed",
            title="Replay everything that failed",
            button="Replay it all",
            describe=lambda event: f"Every FAILED item of {event.merchant} runs again.",
        )
        if page is not None:
            return page
        stamp = Stamp(actor=f"user:{request.user.pk}", cause=f"staff: {reason_of(request)}", now=clock.now())
        count = 0
        for merchant in merchants:
            failed = inbox_events(merchant=merchant, statuses=[InboxStatus.FAILED])
            count += len(inbox_replay_all(events=failed, stamp=stamp))
        for event in rows:
            self.log_change(request, event, f"Replayed all that failed: {reason_of(request)}")
        self.message_user(request, f"{count} items run again.", messages.SUCCESS)
        return None
