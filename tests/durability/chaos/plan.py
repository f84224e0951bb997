"""What a seed makes happen. Pure: the same seed always tells the same story, so a failing one can be told alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

# Where a worker may be struck, in the order of the charge protocol (tests/durability/chaos/places.py).
OUTSIDE_TRANSACTIONS = ("claimed", "written", "sent", "recorded", "handled", "looked_up", "resending")
INSIDE_TRANSACTIONS = ("checked", "recording", "handling", "adopting")
PLACES = OUTSIDE_TRANSACTIONS + INSIDE_TRANSACTIONS
# Places from which a worker that slept past its lease could still do harm.
SLEEPING_PLACES = ("claimed", "written", "written", "sent", "looked_up", "resending")
_OF_ROLE = {
    "retries": ("claimed", "checked", "written", "sent", "sent", "recording", "recorded"),
    "reconcile": ("looked_up", "resending", "adopting"),
    "inbox": ("handling", "handled"),
}
_TOKENS = (
    "tok_ok",
    "tok_ok",
    "tok_decline_insufficient_funds_then_ok_1",
    "tok_decline_processing_error_then_ok_2",
    "tok_decline_do_not_honor_then_ok_1",
    "tok_decline_lost_card",
)
_CODES = ("insufficient_funds", "insufficient_funds", "processing_error", "do_not_honor")
# DESIGN section 16; `late` is a request that arrives after its sender has given up.
_FAULTS = (
    "timeout_before",
    "timeout_after_charge",
    "reset_after_charge",
    "http500_before",
    "http500_after_charge",
    "http429:30",
    "malformed",
    "pending",
    "slow:0.1",
    "late:0.9",
)
# Faults whose answer never comes while the client waits: each costs its time-out, so they are dealt sparingly.
_WAITING = frozenset({"timeout_before", "timeout_after_charge", "late:0.9"})
_JUMPS = (
    timedelta(minutes=1),
    timedelta(minutes=12),
    timedelta(minutes=31),
    timedelta(hours=2),
    timedelta(hours=13),
    timedelta(hours=25),
    timedelta(days=3),
    timedelta(minutes=-5),
)
MISHAPS = ("postgres_killed", "redis_flushed", "redis_killed", "sandbox_killed")


@dataclass(frozen=True, slots=True)
class Debt:
    """One invoice whose first charge failed. Of one customer no two owe the same amount.

    `shares_card`: other customers of the story pay with the same card.
    """

    number: int
    customer: int
    token: str
    shares_card: bool
    amount_minor: int
    code: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What strikes a process at the nth time that it comes to a place.

    `kill` is SIGKILL, `stop` is SIGSTOP until the round's mishap is over, `sleep` is SIGSTOP until its lease is over
    and the others have gone on without it.
    """

    place: str
    nth: int
    blow: str


@dataclass(frozen=True, slots=True)
class Run:
    """One worker process: what it does, how far its clock is off, and its fate, if it has one."""

    role: str
    skew: timedelta
    threads: int
    fate: Fate | None


@dataclass(frozen=True, slots=True)
class Round:
    """The clock jumps, webhooks arrive (a share of them, shuffled, some twice), people act, then the workers run at
    the same time and something breaks under them."""

    jump: timedelta
    delivered: float
    acts: tuple[tuple[str, int], ...]
    runs: tuple[Run, ...]
    mishap: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole story. `lookup` is what the provider can say about our reference; whoever sleeps wakes up at the end of
    round `wakes_in`."""

    seed: int
    lookup: str
    debts: tuple[Debt, ...]
    rates: tuple[tuple[str, float], ...]
    rounds: tuple[Round, ...]
    wakes_in: int


def plan_of(seed: int) -> Plan:
    """The story of a seed."""
    dice = Random(f"chaos {seed}")
    number = dice.randint(3, 4)
    # One worker of the story may fall asleep, early enough that the others go on without it.
    sleeps_in = dice.randrange(number - 1) if dice.random() < 0.4 else None
    return Plan(
        seed=seed,
        lookup=dice.choices(("authoritative", "eventual", "none"), (6, 2, 2))[0],
        debts=_debts(dice),
        rates=_rates(dice),
        rounds=tuple(_round(dice, first=index == 0, sleeps=index == sleeps_in) for index in range(number)),
        wakes_in=dice.randint(sleeps_in + 1, number - 1) if sleeps_in is not None else number - 1,
    )


def _debts(dice: Random) -> tuple[Debt, ...]:
    customers = [dice.choice(_TOKENS) + dice.choice(("", "_mc")) for _ in range(dice.randint(3, 5))]
    sharing = dice.random() < 0.3
    found = []
    for number in range(dice.randint(5, 8)):
        customer = number if number < len(customers) else dice.randrange(len(customers))
        found.append(
            Debt(
                number=number,
                customer=customer,
                token=customers[customer],
                shares_card=sharing and customer < 2,
                amount_minor=1000 + 101 * number,
                code=dice.choice(_CODES),
            )
        )
    return tuple(found)


def _rates(dice: Random) -> tuple[tuple[str, float], ...]:
    chosen = dice.sample(_FAULTS, dice.randint(2, 4))
    return tuple((step, dice.uniform(0.03, 0.1) if step in _WAITING else dice.uniform(0.1, 0.3)) for step in chosen)


def _round(dice: Random, *, first: bool, sleeps: bool) -> Round:
    roles = dice.choices(
        (("retries",), ("retries", "reconcile"), ("retries", "retries", "inbox"), ("reconcile", "inbox")), (3, 4, 3, 2)
    )[0]
    runs = [_run(dice, role) for role in roles]
    if sleeps:
        runs[0] = _sleeper(dice)
    mishap = dice.choice(MISHAPS) if dice.random() < 0.3 else ""
    if mishap and not any(run.fate is not None and run.fate.blow == "stop" for run in runs[1:]):
        runs.append(_struck(dice, "retries", "stop"))
    return Round(
        jump=timedelta(hours=25) if first else dice.choice(_JUMPS),
        delivered=dice.choice((0.0, 0.5, 1.0)),
        acts=tuple((dice.choice(("cancel", "refund", "refund_part", "settle")), dice.randrange(8)) for _ in range(2)),
        runs=tuple(runs),
        mishap=mishap,
    )


def _run(dice: Random, role: str) -> Run:
    if dice.random() < 0.45:
        return _struck(dice, role, "kill")
    return Run(role, _skew(dice), dice.choice((1, 1, 4)), None)


def _struck(dice: Random, role: str, blow: str) -> Run:
    fate = Fate(dice.choice(_OF_ROLE[role]), dice.randint(1, 3), blow)
    return Run(role, _skew(dice), dice.choice((1, 1, 4)), fate)


def _sleeper(dice: Random) -> Run:
    place = dice.choice(SLEEPING_PLACES)
    role = "reconcile" if place in ("looked_up", "resending") else "retries"
    return Run(role, timedelta(0), 1, Fate(place, 1, "sleep"))


def _skew(dice: Random) -> timedelta:
    return timedelta(seconds=dice.choice((0, 0, 0, -90, 90)))


# --- one story for each guard -------------------------------------------------------------------------------------

DAY, HALF_HOUR, HALF_DAY, SOON = timedelta(hours=25), timedelta(minutes=31), timedelta(hours=13), timedelta(minutes=1)


def _drama(
    *rounds: tuple[timedelta, float, Run],
    token: str = "tok_ok",
    fault: str = "",
    lookup: str = "authoritative",
) -> Plan:
    """One debt, and rounds of one worker each: how far the clock jumps, what is told before, who runs."""
    debt = Debt(0, 0, token, False, 1000, "insufficient_funds")
    told = tuple(Round(jump, share, (), (run,), "") for jump, share, run in rounds)
    return Plan(0, lookup, (debt,), ((fault, 1.0),) if fault else (), told, len(told) - 1)


def _plain(role: str, blow: str = "", place: str = "") -> Run:
    return Run(role, timedelta(0), 1, Fate(place, 1, blow) if blow else None)


# What each guard is for: the shortest story that goes wrong without it.
DRAMAS = {
    # Slept after the claim, wakes when another worker has taken the job over and booked the next try for tomorrow.
    "claim token": _drama(
        (DAY, 0.0, _plain("retries", "sleep", "claimed")),
        (SOON, 0.0, _plain("retries")),
        token="tok_decline_insufficient_funds_then_ok_1",
    ),
    # Slept between the write and the call, wakes when the attempt was found absent and a new key was used.
    "send by": _drama(
        (DAY, 0.0, _plain("retries", "sleep", "written")),
        (HALF_DAY, 0.0, _plain("reconcile")),
        (SOON, 0.0, _plain("retries")),
    ),
    # The answer was lost and cannot be looked up: sending again is safe only under the same key.
    "one key per attempt": _drama(
        (DAY, 0.0, _plain("retries")),
        (HALF_HOUR, 0.0, _plain("reconcile")),
        fault="http500_after_charge",
        lookup="none",
    ),
    # The answer was lost, the money was not.
    "unknown is not failed": _drama(
        (DAY, 0.0, _plain("retries")),
        (HALF_HOUR, 0.0, _plain("retries")),
        fault="http500_after_charge",
    ),
    # Killed between the provider's answer and the commit.
    "written down before it is sent": _drama(
        (DAY, 0.0, _plain("retries", "kill", "sent")),
        (HALF_HOUR, 0.0, _plain("retries")),
    ),
    # The webhook tells of a charge whose reply was lost.
    "one charge is one attempt": _drama(
        (DAY, 0.0, _plain("retries")),
        (SOON, 1.0, _plain("inbox")),
        (HALF_HOUR, 0.0, _plain("reconcile")),
        fault="http500_after_charge",
    ),
}


def seeds_of(text: str, default: Sequence[int]) -> list[int]:
    """`17`, `3,5` or `0-99` from the environment; the default if nothing is said."""
    if not text:
        return list(default)
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
