"""Cases, retry jobs, policies, segments and decline overrides."""

from typing import Any

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.fields import StrictSerializer
from accounts.api.filters import IdFilter, ListFilters, WordFilter
from accounts.api.views import ApiView, DetailView, ListView, ResourceView
from accounts.scopes import Scope
from invoices.states import TransactionKind, Trigger
from recovery_site.common.errors import NotFound
from retries.api.invoices import CaseSerializer
from retries.categories import Category
from retries.models import Case, DeclineOverride, PolicyVersion, RetryJob
from retries.services.cases import policy_version_create, policy_version_current
from retries.services.overrides import decline_override_set
from retries.states import CaseStatus, JobStatus, NextStep


class CaseListSerializer(CaseSerializer):
    """One failure episode, and whose."""

    invoice = serializers.CharField(source="invoice.public_id")
    customer = serializers.CharField(source="customer.public_id")

    class Meta:
        model = Case
        fields = ("invoice", "customer", *CaseSerializer.Meta.fields)
        read_only_fields = fields


class CaseFilters(ListFilters):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    customer = IdFilter("customer", "Of this customer (`cus_...`).")
    status = filters.ChoiceFilter(choices=CaseStatus.choices)
    next_step = filters.ChoiceFilter(choices=NextStep.choices)
    category = WordFilter("category", "What classification made of the failure.", 30)
    segment = WordFilter("segment", "Of customers of this segment.", 40)

    class Meta:
        model = Case
        fields: tuple[str, ...] = ()


class _Cases(ResourceView):
    serializer_class = CaseListSerializer

    def rows(self):
        return Case.objects.select_related("invoice", "customer", "policy_version")


class CaseListView(_Cases, ListView):
    """Cases, newest first."""

    filterset_class = CaseFilters
    orderings = {"created_at": "created_at", "opened_at": "opened_at"}


class CaseView(_Cases, DetailView):
    """One case."""

    what = "case"


class JobSerializer(serializers.ModelSerializer):
    """The schedule of a transaction's next attempt, and why it is as it is."""

    id = serializers.CharField(source="public_id", help_text="`job_...`")
    invoice = serializers.CharField(source="invoice.public_id")
    transaction = serializers.CharField(source="transaction.public_id")
    customer = serializers.CharField(source="customer.public_id")
    case = serializers.CharField(source="case.public_id", allow_null=True, default=None)
    token = serializers.CharField(source="token.public_id", allow_null=True, default=None)
    kind = serializers.ChoiceField(choices=TransactionKind.choices)
    status = serializers.ChoiceField(choices=JobStatus.choices)
    trigger = serializers.ChoiceField(choices=Trigger.choices)
    priority = serializers.IntegerField(source="band", help_text="0 goes first, 9 last.")
    decision = serializers.JSONField(help_text="What was considered.")

    class Meta:
        model = RetryJob
        fields = (
            "id",
            "invoice",
            "transaction",
            "customer",
            "case",
            "token",
            "kind",
            "status",
            "trigger",
            "due_at",
            "priority",
            "why",
            "decision",
            "requested_by",
            "created_at",
        )
        read_only_fields = fields


class JobFilters(ListFilters):
    invoice = IdFilter("invoice", "Of this invoice (`inv_...`).")
    customer = IdFilter("customer", "Of this customer (`cus_...`).")
    status = filters.ChoiceFilter(choices=JobStatus.choices)
    kind = filters.ChoiceFilter(choices=TransactionKind.choices)

    class Meta:
        model = RetryJob
        fields: tuple[str, ...] = ()


class _Jobs(ResourceView):
    serializer_class = JobSerializer

    def rows(self):
        return RetryJob.objects.select_related("invoice", "transaction", "customer", "case", "token")


class JobListView(_Jobs, ListView):
    """Retry jobs, newest first."""

    filterset_class = JobFilters


class JobView(_Jobs, DetailView):
    """One retry job."""

    what = "retry job"


class PolicySerializer(serializers.ModelSerializer):
    """One version of the policy document; the highest is in force for cases opened from then on."""

    document = serializers.JSONField()

    class Meta:
        model = PolicyVersion
        fields = ("version", "document", "note", "created_by", "created_at")
        read_only_fields = fields


class PolicyRequestSerializer(StrictSerializer):
    document = serializers.DictField(help_text="By retries/policy.schema.json.")
    note = serializers.CharField(required=False, allow_blank=True, max_length=200, default="")


class PolicyFilters(ListFilters):
    class Meta:
        model = PolicyVersion
        fields: tuple[str, ...] = ()


class PolicyListView(ListView):
    """Versions of the policy, newest first; a POST adds one."""

    serializer_class = PolicySerializer
    filterset_class = PolicyFilters
    scopes = {"POST": Scope.SETTINGS}

    def rows(self):
        return PolicyVersion.objects.all()

    @extend_schema(request=PolicyRequestSerializer, responses={201: PolicySerializer})
    def post(self, request: Request) -> Response:
        given = self.body(PolicyRequestSerializer)
        version = policy_version_create(merchant_id=self.merchant.pk, created_by=self.caller.actor, **given)
        return Response(PolicySerializer(PolicyVersion.objects.get(pk=version.pk)).data, status=201)


class PolicyView(DetailView):
    """One version of the policy."""

    serializer_class = PolicySerializer
    what = "policy version"

    def rows(self):
        return PolicyVersion.objects.all()

    def row(self) -> Any:
        found = self.get_queryset().filter(version=min(self.kwargs["version"], 2**31 - 1)).first()
        if found is None:
            raise NotFound("There is no such policy version among yours.")
        return found


class SegmentsView(ApiView):
    """The segments of the policy in force, in the order in which they are asked; the first that fits holds."""

    @extend_schema(
        responses=inline_serializer(
            "Segments", {"policy_version": serializers.IntegerField(), "data": serializers.ListField()}
        )
    )
    def get(self, request: Request) -> Response:
        version = policy_version_current(self.merchant.pk)
        return Response({"policy_version": version.version, "data": version.document.get("segments", [])})


class OverrideSerializer(serializers.ModelSerializer):
    """The merchant's own reading of a decline code; the newest version per code is in force."""

    class Meta:
        model = DeclineOverride
        fields = ("provider", "code", "version", "category", "note", "created_by", "created_at")
        read_only_fields = fields


class OverrideFilters(ListFilters):
    provider = WordFilter("provider", "Of this provider.", 40)
    code = WordFilter("code", "Of this code.", 100)

    class Meta:
        model = DeclineOverride
        fields: tuple[str, ...] = ()


class OverrideRequestSerializer(StrictSerializer):
    provider = serializers.CharField(max_length=40)
    code = serializers.CharField(max_length=100)
    category = serializers.ChoiceField(
        choices=[one.value for one in Category], allow_blank=True, help_text="Empty: read as shipped again."
    )
    note = serializers.CharField(required=False, allow_blank=True, max_length=200, default="")


class OverrideListView(ListView):
    """Decline overrides, newest first; a POST adds a version, which counts for failures from now on."""

    serializer_class = OverrideSerializer
    filterset_class = OverrideFilters
    scopes = {"POST": Scope.SETTINGS}

    @extend_schema(request=OverrideRequestSerializer, responses={201: OverrideSerializer})
    def post(self, request: Request) -> Response:
        given = self.body(OverrideRequestSerializer)
        saved = decline_override_set(merchant=self.merchant, created_by=self.caller.actor, **given)
        return Response(OverrideSerializer(DeclineOverride.objects.get(pk=saved.pk)).data, status=201)

    def rows(self):
        return DeclineOverride.objects.all()
