"""Who plays: the merchants with their accounts and addresses, and the person who looks on."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction

from accounts.models import Merchant, User
from accounts.services import membership_set, merchant_create
from accounts.states import Role
from invoices.services.parties import connection_create
from recovery_site.demo.settings import merchant_settle
from webhooks.models import WebhookEndpoint
from webhooks.services import endpoint_create, endpoint_secrets

# In the order in which the simulator gives out trades: software for companies, then media for people.
MERCHANTS: Mapping[str, str] = {"Alpenglow Software": "Europe/Berlin", "Northwind Media": "America/New_York"}
USERNAME = "demo"
SUPPORT = "maya"
DAYS = 90


@dataclass(frozen=True, slots=True)
class Player:
    """A merchant and the address its billing system reports to."""

    merchant: Merchant
    endpoint: WebhookEndpoint
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """`since` is when the merchants' business began on the demo's clock, `until` when its history ends.

    `support` works at all merchants and cannot log in.
    """

    players: Mapping[str, Player]
    support: User
    since: datetime
    until: datetime


@transaction.atomic
def cast_ensure(*, days: int = DAYS, config: Mapping[str, object] | None = None) -> Cast:
    """The merchants, made at the first call and found at later ones; the same history belongs to them each time.

    `config` is that of the simulator connections. The history ends at the hour in which they were made.
    """
    players = {name: _player(name, zone, config or {}) for name, zone in MERCHANTS.items()}
    made = min(player.merchant.created_at for player in players.values())
    until = made.replace(minute=0, second=0, microsecond=0)
    return Cast(players, _support(players), until - timedelta(days=days), until)


def _player(name: str, zone: str, config: Mapping[str, object]) -> Player:
    merchant = Merchant.objects.filter(name=name).first()
    if merchant is None:
        merchant = merchant_create(name=name, timezone=zone).merchant
        merchant.refresh_from_db(fields=["created_at"])
        account = connection_create(merchant=merchant, provider="simulator", config=config)
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        endpoint_create(merchant=merchant, provider="simulator", secret=secret, connection=account)
        merchant_settle(merchant)
    endpoint = WebhookEndpoint.objects.filter(merchant=merchant, provider="simulator").earliest("pk")
    return Player(merchant, endpoint, endpoint_secrets(endpoint)[0])


def _support(players: Mapping[str, Player]) -> User:
    person, made = User.objects.get_or_create(
        username=SUPPORT, defaults={"first_name": "Maya", "last_name": "Lindqvist"}
    )
    if made:
        person.set_unusable_password()
        person.save(update_fields=["password"])
    for player in players.values():
        membership_set(user=person, merchant=player.merchant, role=Role.SUPPORT)
    return person


@transaction.atomic
def onlooker_admit(cast: Cast) -> str:
    """Give the demo's user a new password, which is stored nowhere but as a hash, and return it."""
    password = "-".join(secrets.token_hex(2) for _ in range(3))
    user, _ = User.objects.get_or_create(username=USERNAME, defaults={"is_staff": True, "is_superuser": True})
    user.set_password(password)
    user.save(update_fields=["password"])
    for player in cast.players.values():
        membership_set(user=user, merchant=player.merchant, role=Role.OWNER)
    return password
