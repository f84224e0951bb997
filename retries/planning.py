"""From a classified failure and a policy to the instant of the next automatic try, or why there is none.

Pure. The network's rules come on top (`tokens.budgets.earliest_allowed` with this instant as `not_before`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

from retries.categories import Category
from retries.classification import Classification
from retries.policy import CategoryStrategy, Policy, Trigger
from retries.timing import next_allowed_instant


class NoRetry(StrEnum):
    """Why a machine does not try again."""

    LOOK_UP = "look_up"
    REFUSED_FOR_GOOD = "refused_for_good"
    NEEDS_CUSTOMER = "needs_customer"
    NEEDS_ENGINEERING = "needs_engineering"
    NEEDS_STAFF = "needs_staff"
    NOT_IN_POLICY = "not_in_policy"
    ATTEMPTS_SPENT = "attempts_spent"
    BUDGET_SPENT = "budget_spent"
    PAST_HORIZON = "past_horizon"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseProgress:
    """Where a case stands. `retries_of_kind`: automatic retries already made under the strategy in question;
    `automatic_retries`: all of them. `seed` fixes the jitter; the same seed gives the same plan."""

    opened_at: datetime
    failed_at: datetime
    retries_of_kind: int
    automatic_retries: int
    seed: str


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """`at` is the instant of retry number `number` (of its kind), or None with the `obstacle`; `reason` in
    words."""

    at: datetime | None
    number: int
    reason: str
    obstacle: NoRetry | None = None


def plan_retry(
    policy: Policy,
    segment: str,
    classification: Classification,
    progress: CaseProgress,
    zone: tzinfo,
    provider_wait: timedelta | None = None,
) -> RetryPlan:
    """The next automatic try on the same token after the failure at `progress.failed_at`.

    `zone` is the customer's, for quiet hours; `provider_wait` what the provider asked for (Retry-After).
    """
    number = progress.retries_of_kind + 1
    obstacle = _obstacle(classification)
    if obstacle is not None:
        return RetryPlan(None, number, classification.explanation, obstacle)
    chosen = policy.for_segment(segment)
    strategy = policy.strategy_for(segment, classification.category, classification.known, classification.retry_class)
    spent = _spent(strategy, number, progress, chosen.budgets[Trigger.AUTOMATIC])
    if spent is not None:
        return spent
    delay = strategy.delay(number, progress.seed) or timedelta()
    wait = max((delay, *(asked for asked in (classification.wait, provider_wait) if asked is not None)))
    at = progress.failed_at + wait
    if chosen.quiet is not None and chosen.quiet.retries:
        at = next_allowed_instant(at, zone, chosen.quiet.hours)
    if at > progress.opened_at + chosen.horizon:
        reason = "The next try would lie past the policy's horizon."
        return RetryPlan(None, number, reason, NoRetry.PAST_HORIZON)
    asked = " and the wait that was asked for" if wait > delay else ""
    return RetryPlan(at, number, f"Retry {number} of {strategy.max_attempts} after {_what(strategy)}{asked}.")


def preview(
    policy: Policy,
    segment: str,
    classification: Classification,
    failed_at: datetime,
    zone: tzinfo,
    seed: str,
) -> tuple[RetryPlan, ...]:
    """The tries a case would get if each failed at once and in the same way; the last says why it ends."""
    plans: list[RetryPlan] = []
    at: datetime | None = failed_at
    while at is not None:
        progress = CaseProgress(
            opened_at=failed_at,
            failed_at=at,
            retries_of_kind=len(plans),
            automatic_retries=len(plans),
            seed=seed,
        )
        plans.append(plan_retry(policy, segment, classification, progress, zone))
        at = plans[-1].at
    return tuple(plans)


def _obstacle(classification: Classification) -> NoRetry | None:
    if classification.look_up:
        return NoRetry.LOOK_UP
    if classification.machine_may_retry:
        return None
    if classification.category is Category.CONFIG_ERROR:
        return NoRetry.NEEDS_ENGINEERING
    if classification.category is Category.FRAUD_FLAGGED:
        return NoRetry.NEEDS_STAFF
    if classification.category is Category.HARD_DECLINE or classification.stop:
        return NoRetry.REFUSED_FOR_GOOD
    return {
        "customer": NoRetry.NEEDS_CUSTOMER,
        "engineering": NoRetry.NEEDS_ENGINEERING,
    }.get(classification.actor, NoRetry.NEEDS_STAFF)


def _spent(strategy: CategoryStrategy, number: int, progress: CaseProgress, budget: int | None) -> RetryPlan | None:
    if strategy.max_attempts == 0:
        reason = f"The policy never retries after {_what(strategy)}."
        return RetryPlan(None, number, reason, NoRetry.NOT_IN_POLICY)
    if number > strategy.max_attempts:
        reason = f"All {strategy.max_attempts} retries after {_what(strategy)} are spent."
        return RetryPlan(None, number, reason, NoRetry.ATTEMPTS_SPENT)
    if budget is not None and progress.automatic_retries >= budget:
        reason = f"All {budget} automatic retries that the policy gives one case are spent."
        return RetryPlan(None, number, reason, NoRetry.BUDGET_SPENT)
    return None


def _what(strategy: CategoryStrategy) -> str:
    return strategy.category.value.lower().replace("_", " ")
