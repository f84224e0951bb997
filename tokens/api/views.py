"""Cards with what is left of their budgets, and the tokens that name them."""

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.filters import IdFilter, ListFilters, WordFilter
from accounts.api.views import DetailView, ListView, ResourceView
from recovery_site.common import clock
from tokens.card_budgets import card_budget
from tokens.models import Card, Token
from tokens.states import TokenStatus


class CardSerializer(serializers.ModelSerializer):
    """The underlying card or bank account; no number is ever stored."""

    id = serializers.CharField(source="public_id", help_text="`crd_...`")
    connection = serializers.CharField(source="connection.public_id")

    class Meta:
        model = Card
        fields = (
            "id",
            "connection",
            "fingerprint",
            "kind",
            "network",
            "last4",
            "exp_month",
            "exp_year",
            "funding",
            "country",
            "bin",
            "issuer",
            "stopped_at",
            "stop_code",
            "wait_until",
            "created_at",
        )
        read_only_fields = fields


class RuleUseSerializer(serializers.Serializer):
    """One rule of the card's network now: what is used up, and when it comes back."""

    name = serializers.CharField()
    subject = serializers.CharField(help_text="An amount or an invoice; empty for the card as a whole.")
    limit = serializers.IntegerField()
    used = serializers.IntegerField()
    remaining = serializers.IntegerField()
    window = serializers.CharField()
    releases_at = serializers.CharField(allow_null=True)
    allowed_at = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]  # the metaclass takes fields out


class CardBudgetSerializer(serializers.Serializer):
    """What the card has left at this moment."""

    card = serializers.CharField()
    at = serializers.CharField()
    remaining = serializers.IntegerField(allow_null=True)
    allowed_at = serializers.CharField()
    why = serializers.CharField()
    shares_budget_with = serializers.ListField(child=serializers.CharField())
    rules = RuleUseSerializer(many=True)


class CardFilters(ListFilters):
    connection = IdFilter("connection", "Of this connection (`con_...`).")
    fingerprint = WordFilter("fingerprint", "The provider's id of the card.")

    class Meta:
        model = Card
        fields: tuple[str, ...] = ()


class _Cards(ResourceView):
    serializer_class = CardSerializer

    def rows(self):
        return Card.objects.select_related("connection")


class CardListView(_Cards, ListView):
    """Cards, newest first."""

    filterset_class = CardFilters
    orderings = {"created_at": "created_at"}


class CardView(_Cards, DetailView):
    """One card."""

    what = "card"


class CardBudgetView(_Cards, DetailView):
    """What the card has left under its network's rules, rule by rule, and when it may be tried next."""

    what = "card"

    @extend_schema(responses=CardBudgetSerializer)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002  (the name in the address)
        return Response(CardBudgetSerializer(card_budget(self.row(), clock.now()).as_dict()).data)


class TokenSerializer(serializers.ModelSerializer):
    """A stored card or mandate of a customer."""

    id = serializers.CharField(source="public_id", help_text="`tok_...`")
    connection = serializers.CharField(source="connection.public_id")
    customer = serializers.CharField(source="customer.public_id")
    card = serializers.CharField(source="card.public_id")
    status = serializers.ChoiceField(choices=TokenStatus.choices)

    class Meta:
        model = Token
        fields = (
            "id",
            "connection",
            "customer",
            "card",
            "provider_token",
            "status",
            "decline_code",
            "declined_at",
            "is_default",
            "last_success_at",
            "first_seen_at",
            "created_at",
        )
        read_only_fields = fields


class TokenFilters(ListFilters):
    customer = IdFilter("customer", "Of this customer (`cus_...`).")
    card = IdFilter("card", "That name this card (`crd_...`).")
    status = filters.ChoiceFilter(choices=TokenStatus.choices)

    class Meta:
        model = Token
        fields: tuple[str, ...] = ()


class _Tokens(ResourceView):
    serializer_class = TokenSerializer

    def rows(self):
        return Token.objects.select_related("connection", "customer", "card")


class TokenListView(_Tokens, ListView):
    """Tokens, newest first."""

    filterset_class = TokenFilters
    orderings = {"created_at": "created_at"}


class TokenView(_Tokens, DetailView):
    """One token."""

    what = "token"
