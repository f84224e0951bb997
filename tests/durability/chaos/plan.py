"""A seed becomes a story: what is owed, how the provider fails, and who dies when. Pure: the same seed, the same plan."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Where a worker may be struck: after taking jobs, after writing the intent down, after the call, after writing the
# result down; and for the other processes, after a look-up or an event was handled.
WORKER_POINTS = ("claimed", "prepared", "sent", "recorded")
SWEEP_POINTS = ("looked_up", "answered", "recorded")
INBOX_POINTS = ("handled",)
TOKENS = (
    "tok_ok",
    "tok_ok",
    "tok_ok_mc",
    "tok_decline_insufficient_funds_then_ok_1",
    "tok_decline_insufficient_funds_then_ok_2",
    "tok_decline_do_not_honor_then_ok_1",
    "tok_decline_lost_card",
)
FAULTS = (
    "timeout_before",
    "timeout_after_charge",
    "reset_after_charge",
    "http500_before",
    "http500_after_charge",
    "http429:30",
    "malformed",
    "slow:0.05",
    "pending",
    "decline:do_not_honor",
)
# An episode strikes in a way that needs several steps in order.
EPISODES = ("stalls_before_writing", "stalls_before_sending", "part_is_paid_outside", "reply_gets_lost")


@dataclass(frozen=True, slots=True)
class Owed:
    """One failed invoice: whose, with which token, how much (minor units)."""

    number: int
    customer: int
    token: str
    amount: int


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """`hazy`: the provider's look-up by our reference proves nothing. `mortal`: its server is a process of its own."""

    seed: int
    owed: tuple[Owed, ...]
    rates: Mapping[str, float]
    hazy: bool
    mortal: bool
    steps: tuple[Step, ...]


def make_plan(seed: int, *, servers: bool = False) -> Plan:
    """The story of a seed. `servers`: PostgreSQL and Redis die in it too."""
    dice = random.Random(f"chaos {seed}")
    owed = tuple(_owed(dice))
    rates = {name: round(dice.uniform(0.02, 0.15), 3) for name in dice.sample(FAULTS, dice.randint(2, 5))}
    mortal = servers or seed % 5 == 4
    steps: list[Step] = [Step("clock", {"hours": 25}), Step("faults", {"rates": rates, "seed": seed})]
    episodes = dice.sample(EPISODES, 2)
    for turn in range(dice.randint(6, 8)):
        if turn in (1, 3):
            steps += _episode(episodes.pop(), dice, owed)
        steps += _turn(dice, owed)
        if servers and turn % 2 == 0:
            steps.append(Step(("postgres_dies", "redis_dies")[turn // 2 % 2]))
    return Plan(seed, owed, rates, hazy=dice.random() < 0.3, mortal=mortal, steps=tuple(steps))


def _owed(dice: random.Random) -> Iterator[Owed]:
    number = dice.randint(9, 12)
    customers = [dice.randrange(number) for _ in range(number)]
    for index in range(number):
        yield Owed(index, customers[index], dice.choice(TOKENS), dice.choice((990, 1999, 2500, 12_000)))


def _turn(dice: random.Random, owed: tuple[Owed, ...]) -> Iterator[Step]:
    """One round: something happens to the money, somebody works, the clock moves."""
    for _ in range(dice.randint(0, 2)):
        yield _event(dice, owed)
    if dice.random() < 0.75:
        yield Step("workers", {"number": dice.choice((1, 1, 2)), "die": _strike(dice, WORKER_POINTS, 0.6)})
    if dice.random() < 0.5:
        yield Step("reconcile", {"die": _strike(dice, SWEEP_POINTS, 0.3)})
    if dice.random() < 0.6:
        yield Step("webhooks", {"share": dice.choice((0.4, 1.0)), "seed": dice.randrange(10**6)})
        yield Step("inbox", {"die": _strike(dice, INBOX_POINTS, 0.3)})
    yield Step("clock", {"hours": dice.choice((-2, 0.2, 0.6, 1, 13, 25, 49))})
    if dice.random() < 0.6:
        yield Step("leases_run_out")


def _strike(dice: random.Random, points: tuple[str, ...], chance: float) -> tuple[str, int] | None:
    """Where and at the how-manieth time somebody is killed, or nobody."""
    return (dice.choice(points), dice.randint(1, 3)) if dice.random() < chance else None


def _event(dice: random.Random, owed: tuple[Owed, ...]) -> Step:
    invoice = dice.choice(owed).number
    name = dice.choice(
        (
            "provider_dies",
            "redis_is_emptied",
            "settle",
            "settle",
            "paid_outside",
            "new_card",
            "refund",
            "refund",
            "retry_now",
            "pause",
            "resume",
            "cancel",
            "dispute",
            "told_again",
        )
    )
    given = {"invoice": invoice, "share": dice.choice((0.3, 0.5, 1.0)), "good": dice.random() < 0.6}
    return Step(name, given)


def _episode(name: str, dice: random.Random, owed: tuple[Owed, ...]) -> Iterator[Step]:
    yield Step("clock", {"hours": 25})
    match name:
        case "stalls_before_writing":
            # Its lease ends, another worker does the job and is refused by the bank; then the first one wakes up.
            yield Step("all_are_refused", {"code": "insufficient_funds"})
            yield Step("worker_stalls", {"at": ("claimed", 1)})
            yield Step("leases_run_out")
            yield Step("workers", {"number": 1, "die": None})
            yield Step("worker_wakes")
            yield Step("nobody_is_refused")
        case "stalls_before_sending":
            # The others believe that half a day has passed; the database's clock knows better.
            yield Step("worker_stalls", {"at": ("prepared", 1)})
            yield Step("clock", {"hours": 13})
            yield Step("reconcile", {"die": None})
            yield Step("workers", {"number": 1, "die": None})
            yield Step("worker_wakes")
        case "part_is_paid_outside":
            for one in dice.sample(owed, 3):
                yield Step("paid_outside", {"invoice": one.number, "share": 0.5})
            yield Step("workers", {"number": 2, "die": None})
        case "reply_gets_lost":
            yield Step("faults", {"rates": {"reset_after_charge": 1.0}, "seed": 0})
            yield Step("workers", {"number": 1, "die": None})
            yield Step("faults", {"rates": {}, "seed": 0})
            yield Step("clock", {"hours": dice.choice((1, 13))})
            yield Step("leases_run_out")
            yield Step("reconcile", {"die": None})
            yield Step("workers", {"number": 1, "die": None})
