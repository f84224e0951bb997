"""Believable billing traffic for the demo: customers whose renewals fail, and what becomes of them.

Everything is told the way a real billing system would: as bodies of the generic webhook format, in time
order. The same arguments give the same traffic, and consecutive windows join without a seam if `since` stays:

    history = population(seed=1, merchants=names, start=first, days=90)
    later = population(seed=1, merchants=names, start=first + timedelta(days=90), days=30, since=first)
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from providers.base import CardFacts, DeclineFacts
from providers.simulator import issuer, people
from providers.simulator.people import Person, Plan, Trade

# A customer's story ends this long after it began.
STORY = timedelta(days=100)
DAY = timedelta(days=1)

# Shares of failing customers; the last two of those whose card never works again.
SECOND_CARD = 0.25
SECOND_SUBSCRIPTION = 0.12
CANCELS = 0.05
PAID_BY_TRANSFER = 0.08
VOIDED = 0.06
FIXES_CARD: Mapping[str, float] = {"hard": 0.45, "auth": 0.5, "fraud": 0.25, "generic": 0.08, "funds": 0.05}
_DISPUTE_REASONS = {"visa": "13.2", "mastercard": "4853", "amex": "C28", "discover": "AP"}
# Shares of payments that went well.
REFUNDED = 0.06
DISPUTED = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook to send for `merchant` at `at`; `event_id` goes into webhook-id."""

    merchant: str
    at: datetime
    event_id: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subscription:
    id: str
    plan: Plan
    currency: str


def population(
    *,
    seed: int,
    merchants: Sequence[str],
    start: datetime,
    days: int,
    cases_per_day: float = 6.0,
    successes_per_day: float = 3.0,
    since: datetime | None = None,
) -> Iterator[Delivery]:
    """Deliveries of `days` days from `start` on, in time order, made while they are read.

    `cases_per_day` new failing customers and `successes_per_day` new paying ones per merchant, on average.
    `since` is when the business began (default `start`): nothing refers to what happened before it.
    """
    start = start.astimezone(UTC)
    since = (since or start).astimezone(UTC)
    end = start + days * DAY
    waiting: list[tuple[datetime, str, Delivery]] = []
    day = max(since, start - STORY).replace(hour=0, minute=0, second=0, microsecond=0)
    while day < end:
        for number, merchant in enumerate(merchants):
            trade = people.TRADES[number % len(people.TRADES)]
            rng = Random(f"{seed}|{merchant}|{day:%Y-%m-%d}")
            for began, failing in _beginnings(rng, day, cases_per_day, successes_per_day):
                story = _Story(rng, merchant, trade, began)
                deliveries = story.failing() if failing else story.paying()
                if began >= since:
                    for delivery in deliveries:
                        heapq.heappush(waiting, (delivery.at, delivery.event_id, delivery))
        day += DAY
        while waiting and waiting[0][0] < min(day, end):
            delivery = heapq.heappop(waiting)[2]
            if delivery.at >= start:
                yield delivery


def _beginnings(rng: Random, day: datetime, cases: float, successes: float) -> Iterator[tuple[datetime, bool]]:
    """When stories begin on a day, and whether with a failure; the morning and the 1st are crowded."""
    busy = 1.5 if day.day == 1 else rng.uniform(0.6, 1.35)
    for mean, failing in ((cases, True), (successes, False)):
        expected = mean * busy
        count = int(expected) + (rng.random() < expected % 1)
        for _ in range(count):
            yield day + timedelta(seconds=900 + int(rng.triangular(0, 85_000, 30_000))), failing


class _Story:
    """One customer's deliveries. Every random choice is drawn from the day's generator, in a fixed order."""

    def __init__(self, rng: Random, merchant: str, trade: Trade, began: datetime) -> None:
        self._rng = rng
        self._merchant = merchant
        self._trade = trade
        self._began = began
        self._person: Person = people.person(rng, trade)
        self._network, self._funding = people.card_kind(rng, trade, self._person.place)
        self._deliveries: list[Delivery] = []
        self._token = ""
        # From when on which token is the customer's default.
        self._replacement: tuple[datetime, str] | None = None

    def failing(self) -> Sequence[Delivery]:
        """A renewal that fails, perhaps two at once, and what the customer and the biller do about it."""
        profile = people.trouble(self._rng, self._funding)
        self._token = issuer.token_name(
            profile,
            network=self._network,
            funding=self._funding,
            failed_at=self._began,
            serial=self._serial(),
        )
        if self._rng.random() < SECOND_CARD:
            self._method(self._began - timedelta(minutes=5), self._second_card(), default=False)
        self._follow(profile)
        count = 2 if self._rng.random() < SECOND_SUBSCRIPTION else 1
        for number in range(count):
            self._renewals(self._subscription(), self._began + timedelta(minutes=number), failed=True)
        return self._told()

    def paying(self) -> Sequence[Delivery]:
        """A customer whose payments simply work; some want their money back."""
        self._token = self._good_token()
        self._renewals(self._subscription(), self._began, failed=False)
        return self._told()

    def _told(self) -> Sequence[Delivery]:
        return [delivery for delivery in self._deliveries if delivery.at < self._began + STORY]

    # What happens

    def _renewals(self, subscription: Subscription, first: datetime, *, failed: bool) -> None:
        """The first payment and the next two of a monthly plan, each as the issuer decides."""
        ended = self._end(subscription, first) if failed else None
        for number in range(3 if subscription.plan.interval == "month" else 1):
            at = _months_later(first, number)
            if (ended and at >= ended) or (number and self._lost(at)):
                return
            charge, token = self._id("ch"), self._token_at(at)
            decline = issuer.decide(token, at, charge).decline
            if number == 0 and failed:
                # The story's premise, whatever luck a single charge may have.
                decline = decline or issuer.usual_decline(token, at)
            self._payment(subscription, at, charge, token, decline)

    def _end(self, subscription: Subscription, failed_at: datetime) -> datetime | None:
        if self._rng.random() >= CANCELS:
            return None
        at = failed_at + timedelta(days=self._rng.uniform(6, 25))
        self._tell("subscription.ended", at, {"subscription_id": subscription.id, "customer": self._customer()})
        return at

    def _payment(
        self, subscription: Subscription, at: datetime, charge: str, token: str, decline: DeclineFacts | None
    ) -> None:
        invoice = self._invoice(subscription, at, paid=decline is None)
        body = {
            "customer": self._customer(),
            "invoice": invoice,
            "payment": {
                "charge_id": charge,
                "amount": subscription.plan.amount,
                "currency": subscription.currency,
                "invoice_id": invoice["id"],
            },
            "payment_method": self._method_body(token, at, default=True),
        }
        if decline is None:
            self._tell("payment.succeeded", at, body)
            self._regret(subscription, at, charge)
        else:
            self._tell("payment.failed", at, body | {"error": _error(decline)})
            self._settled_elsewhere(invoice, at)

    def _settled_elsewhere(self, invoice: Mapping[str, Any], failed_at: datetime) -> None:
        """Some pay by bank transfer, some invoices are taken back."""
        if self._replacement or not self._lost(failed_at):
            return
        luck, later = self._rng.random(), failed_at + timedelta(days=self._rng.uniform(0.5, 9))
        if luck < PAID_BY_TRANSFER:
            paid = {**invoice, "amount_paid": invoice["amount"], "status": "paid"}
            self._tell("invoice.paid", later, {"customer": self._customer(), "invoice": paid})
        elif luck < PAID_BY_TRANSFER + VOIDED:
            voided = {**invoice, "status": "void"}
            self._tell("invoice.voided", later, {"customer": self._customer(), "invoice": voided})

    def _regret(self, subscription: Subscription, paid_at: datetime, charge: str) -> None:
        luck = self._rng.random()
        money = {"amount": subscription.plan.amount, "currency": subscription.currency, "charge_id": charge}
        if luck < REFUNDED:
            at = paid_at + timedelta(days=self._rng.uniform(0.2, 12))
            refund = {"id": self._id("re"), "reason": "requested_by_customer"} | money
            self._tell("refund.updated", at, {"refund": refund | {"status": "pending"}})
            done = "failed" if self._rng.random() < 0.04 else "succeeded"
            self._tell(
                "refund.updated",
                at + timedelta(hours=self._rng.uniform(1, 60)),
                {"refund": refund | {"status": done}},
            )
        elif luck < REFUNDED + DISPUTED:
            at = paid_at + timedelta(days=self._rng.uniform(3, 25))
            dispute = {
                "id": self._id("dp"),
                "reason_code": _DISPUTE_REASONS[self._network],
            } | money
            self._tell("dispute.updated", at, {"dispute": dispute | {"status": "open"}})
            end = "won" if self._rng.random() < 0.35 else "lost"
            self._tell(
                "dispute.updated",
                at + timedelta(days=self._rng.uniform(8, 30)),
                {"dispute": dispute | {"status": end}},
            )

    def _follow(self, profile: str) -> None:
        """The customer brings a new card, or the network's account updater re-dates the old one."""
        renewed = issuer.clears_at(self._token, self._began) if profile == "expired" else None
        if renewed is not None:
            self._method(renewed + timedelta(minutes=1), self._token, default=True, updated=True)
        elif self._rng.random() < FIXES_CARD.get(profile, 0.0):
            at = self._began + timedelta(days=0.2 + self._rng.expovariate(1 / 3.0))
            self._replacement = (at, self._good_token())
            self._method(at, self._replacement[1], default=True)

    # The parts of a body

    def _token_at(self, at: datetime) -> str:
        return self._replacement[1] if self._replacement and at >= self._replacement[0] else self._token

    def _lost(self, at: datetime) -> bool:
        """True if the card of `at` never works again: no biller goes on billing it."""
        token = self._token_at(at)
        return issuer.is_random(token) and issuer.clears_at(token, at) is None

    def _second_card(self) -> str:
        """Mostly a good one; some customers are short of money on both."""
        if self._rng.random() < 0.7:
            return self._good_token()
        network, funding = people.card_kind(self._rng, self._trade, self._person.place)
        profile = self._rng.choice(("funds", "generic"))
        return issuer.token_name(
            profile, network=network, funding=funding, failed_at=self._began, serial=self._serial()
        )

    def _good_token(self) -> str:
        return f"tok_ok{'_mc' if self._network == 'mastercard' else ''}__{self._serial()}"

    def _method(self, at: datetime, token: str, *, default: bool, updated: bool = False) -> None:
        body = self._method_body(token, at, default=default)
        if updated:
            previous = issuer.card_of(token, self._began)
            body |= {"updated_by_network": True, "previous_card": _card(previous, self._person)}
        self._tell("payment_method.updated", at, {"customer": self._customer(), "payment_method": body})

    def _method_body(self, token: str, at: datetime, *, default: bool) -> dict[str, Any]:
        card = _card(issuer.card_of(token, at), self._person)
        return {"token": token, "kind": "card", "is_default": default, "card": card}

    def _customer(self) -> dict[str, str]:
        return self._person.body()

    def _subscription(self) -> Subscription:
        plan = people.plan(self._rng, self._trade)
        return Subscription(self._id("sub"), plan, self._person.place.currency)

    def _invoice(self, subscription: Subscription, at: datetime, *, paid: bool) -> dict[str, Any]:
        amount = subscription.plan.amount
        return {
            "id": self._id("in"),
            "number": f"{at:%Y%m}-{self._rng.getrandbits(24):06X}",
            "description": f"{subscription.plan.name}, {at:%B %Y}",
            "amount": amount,
            "amount_paid": amount if paid else 0,
            "currency": subscription.currency,
            "subscription_id": subscription.id,
            "plan": subscription.plan.name,
            "interval": subscription.plan.interval,
            "status": "paid" if paid else "open",
            "attempt_count": 1,
            "issued_at": _time(at),
            "due_at": _time(at),
        }

    def _tell(self, event_type: str, at: datetime, body: Mapping[str, Any]) -> None:
        whole = {"type": event_type, "occurred_at": _time(at), **body}
        self._deliveries.append(Delivery(merchant=self._merchant, at=at, event_id=self._id("evt"), body=whole))

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._rng.getrandbits(64):016x}"

    def _serial(self) -> str:
        return f"{self._rng.getrandbits(40):010x}"


def _error(decline: DeclineFacts) -> dict[str, Any]:
    codes = {
        "code": decline.raw_code,
        "network_code": decline.network_code,
        "advice_code": decline.advice_code,
    }
    return {name: code for name, code in codes.items() if code}


def _card(card: CardFacts, person: Person) -> dict[str, Any]:
    shown = {
        "fingerprint": card.fingerprint,
        "network": card.network,
        "last4": card.last4,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "funding": card.funding or "credit",
        "country": person.place.country,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _months_later(first: datetime, months: int) -> datetime:
    """The same day `months` later, at most the 28th, so that it exists in every month."""
    index = first.month - 1 + months
    day = min(first.day, 28) if months else first.day
    return first.replace(year=first.year + index // 12, month=index % 12 + 1, day=day)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
