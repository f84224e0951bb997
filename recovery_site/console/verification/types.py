"""What verification looks at and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from invoices.models import Attempt, Dispute, Event, Invoice, ReviewItem, Transaction
from retries.models import Case, RetryJob


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that differs. `invoice` is the public id, `problem` a stable name, `detail` one sentence."""

    invoice: str
    problem: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One invoice with everything that hangs on it, read in one snapshot. `jobs` are the open ones; `slot_held`: some
    job of the customer is SCHEDULED or RUNNING."""

    invoice: Invoice
    events: Sequence[Event]
    transactions: Sequence[Transaction]
    attempts: Sequence[Attempt]
    disputes: Sequence[Dispute]
    cases: Sequence[Case]
    jobs: Sequence[RetryJob]
    reviews: Sequence[ReviewItem]
    slot_held: bool

    def problem(self, name: str, detail: str) -> Problem:
        return Problem(self.invoice.public_id, name, detail)


# The promises whose breaches are counted one by one; all must be zero.
MUST_BE_ZERO = (
    "attempts_after_hard_decline",
    "attempts_over_a_rule",
    "paid_beyond_the_amount",
    "two_charges_sending_for_one_customer",
    "two_open_charges_of_one_invoice",
    "open_invoice_without_next_step",
    "slot_without_owner",
)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. `problems` holds every difference and every breach of a promise that must be zero."""

    invoices: int
    problems: Sequence[Problem] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def must_be_zero(self) -> Mapping[str, int]:
        counted = dict.fromkeys(MUST_BE_ZERO, 0)
        for problem in self.problems:
            if problem.problem in counted:
                counted[problem.problem] += 1
        return counted
