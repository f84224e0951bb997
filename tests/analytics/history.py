"""A believable month for pages to show: failures, retries with every outcome, refunds, questions; always the same."""

from datetime import datetime, timedelta
from random import Random

from invoices.models import Invoice
from invoices.states import TransactionKind
from providers.base import RefundFacts, RefundStatus
from tests.console.world import World

_CODES = (
    ("insufficient_funds", 30),
    ("do_not_honor", 18),
    ("generic_decline", 10),
    ("expired_card", 9),
    ("stolen_card", 4),
    ("authentication_required", 7),
    ("processing_error", 6),
    ("issuer_not_available", 4),
    ("fraudulent", 3),
    ("try_again_later", 5),
    ("a_code_nobody_knows", 2),
)
_NAMES = (
    "ann",
    "ben",
    "cleo",
    "dev",
    "eva",
    "finn",
    "gia",
    "hugo",
    "ines",
    "jon",
    "kira",
    "liam",
    "mona",
    "nico",
    "olga",
)
_STEP = timedelta(hours=6)


def month(
    world: World, *, until: datetime, days: int = 30, per_day: float = 2.0, currency: str = "USD", seed: int = 7
) -> None:
    """Let `days` days pass at the world until `until`; its clock ends there."""
    random = Random(seed)
    world.at = until - timedelta(days=days)
    serial = 0
    while world.at < until:
        for _ in range(_poisson(random, per_day * (_STEP / timedelta(days=1)))):
            serial += 1
            _fail(world, random, serial, currency)
        for attempt in world.send():
            world.answer(attempt, _answer(random))
        if random.random() < 0.08:
            _give_back(world, random)
        world.at += min(_STEP, until - world.at)


def _fail(world: World, random: Random, serial: int, currency: str) -> Invoice:
    name = random.choice(_NAMES)
    card = random.randint(1, 3)
    return world.fail(
        customer=f"cus_{name}{serial % 40}",
        token=f"tok_{name}{serial % 40}_{card}",
        code=_weighted(random, _CODES),
        amount=random.choice((900, 1_900, 2_900, 4_900, 9_900, 14_900, 49_900)),
        currency=currency,
        network=random.choice(("visa", "visa", "visa", "mastercard", "mastercard", "amex")),
        last4=f"{4000 + serial * 37 % 6000}",
        number=f"{world.name[:2].upper()}-{2000 + serial}",
    )


def _answer(random: Random) -> str:
    roll = random.random()
    return "ok" if roll < 0.48 else "lost" if roll < 0.5 else _weighted(random, _CODES)


def _give_back(world: World, random: Random) -> None:
    """The biller refunds one of the settled invoices."""
    settled = list(Invoice.objects.filter(merchant=world.merchant, status="SETTLED").order_by("pk")[:50])
    if not settled:
        return
    invoice = random.choice(settled)
    charge = invoice.attempts.filter(kind=TransactionKind.CHARGE, status="SUCCEEDED").first()
    if charge is None or not charge.provider_id:
        return
    world.refund(
        RefundFacts(
            id=f"re_{invoice.pk}",
            amount_minor=invoice.amount_minor,
            currency=invoice.currency,
            status=RefundStatus.SUCCEEDED,
            charge_id=charge.provider_id,
        )
    )


def _weighted(random: Random, choices: tuple[tuple[str, int], ...]) -> str:
    return random.choices([name for name, _ in choices], [weight for _, weight in choices])[0]


def _poisson(random: Random, mean: float) -> int:
    count, left = 0, random.expovariate(1.0)
    while left < mean:
        count += 1
        left += random.expovariate(1.0)
    return count
