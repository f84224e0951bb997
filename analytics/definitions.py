"""What every figure means. The only place where a metric is defined: name, sentence, unit.

Pages render these beside the figures (`{% define "key" %}`), selectors compute exactly what is said here, and
nothing else may describe a metric. A figure without an entry cannot be shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Definition:
    """`sentence` says what is counted over what; `unit` what the number is in."""

    key: str
    name: str
    sentence: str
    unit: str


_MONEY = "money per currency; currencies are never added up"

_ALL = (
    Definition(
        "revenue_at_risk",
        "Revenue at risk",
        "What is still due now on invoices with an open recovery case: the invoice's amount less what was"
        " paid and credited. A case opens at the first failed payment and is open until it is recovered,"
        " lost, canceled or written off.",
        _MONEY,
    ),
    Definition(
        "at_risk_by_step",
        "At risk by next step",
        "Revenue at risk, split by the one next step that every open case has: who or what moves next.",
        _MONEY,
    ),
    Definition(
        "recovered_net",
        "Recovered, net",
        "Amounts of the cases that closed as recovered in the period, less refunds, lost disputes and bank"
        " returns of the same invoices since then, whenever these happened, never below zero for one recovery."
        " Days are days in the merchant's time zone.",
        _MONEY,
    ),
    Definition(
        "cohort_recovery_rate",
        "Recovery rate",
        "Of all cases opened in the period, the share that is recovered by now. Open cases stay in the"
        " denominator and are shown apart; while any case of a group is open its rate can still rise and is"
        " marked as not final. Canceled and written-off cases count as not recovered.",
        "percent of cases; by amount: percent of the amount due when the cases opened, per currency",
    ),
    Definition(
        "needs_a_person",
        "Needs a person",
        "Open questions in the staff queue, each something that no machine may decide. Beside them: open cases that"
        " wait for their customer, and alerts that nobody has acknowledged.",
        "questions; cases; alerts",
    ),
    Definition(
        "failures_by_category",
        "Failed attempts by category",
        "Charge attempts made in the period that were declined, or that surely did not happen, by the"
        " category that classification gave them; attempts of this service and those the provider reported"
        " alike. Days are days in the merchant's time zone.",
        "attempts",
    ),
    Definition(
        "top_decline_codes",
        "Decline codes",
        "The provider's own codes of the failed attempts made in the period, most frequent first, with the"
        " category each was given. Beside them: the cases that opened in the period and began with this code, and how"
        " many of those are recovered by now.",
        "attempts; cases",
    ),
    Definition(
        "failures_by_network",
        "Failed attempts by card network",
        "Charge attempts made in the period, by the network of the card; failed ones were declined or surely did"
        " not happen. Beside them: the cases that opened in the period and whose first attempt was on this network.",
        "attempts; cases",
    ),
    Definition(
        "failures_by_country",
        "Failed attempts by card country",
        "As by network, for the country in which the card was issued, where the provider tells it.",
        "attempts; cases",
    ),
    Definition(
        "failures_by_connection",
        "Failed attempts by connection",
        "As by network, for the account at a provider through which the attempt was made.",
        "attempts; cases",
    ),
    Definition(
        "attempts_by_sender",
        "Attempts by sender",
        "Charge attempts made in the period, by who sent them (this service, the provider with first charges and"
        " retries of its own, others) and why, and how many of those with an outcome succeeded.",
        "attempts",
    ),
    Definition(
        "recovered_by_source",
        "Recovered by source",
        "Cases that closed as recovered in the period, by what brought the money: a retry, a card update, staff, the"
        " customer, the provider's own retry, or a payment from outside.",
        "cases; net money per currency",
    ),
    Definition(
        "recovery_by_policy",
        "Recovery by policy version and segment",
        "Of all cases opened in the period, by the policy version and the segment that they were given at opening, the"
        " share that is recovered by now. Open cases stay in the denominator. Versions ran at different times: compare"
        " them only where their cases are alike.",
        "percent of cases; of the amount, per currency",
    ),
    Definition(
        "forecast",
        "Forecast",
        "What the open cases may still bring: the amount due of each, times the share of cases of the same first"
        " category that were recovered after the age it has now, among those opened 45 to 90 days ago that were not yet"
        " recovered at that age. An expectation, not a promise; a category with under 20 such cases uses all of them.",
        _MONEY,
    ),
    Definition(
        "budget_use",
        "Use of the networks' budgets",
        "The newest 2,000 open cases' cards, by network and rule: how many have used nothing, up to half, more than"
        " half, and all of what the rule allows in its window now.",
        "cards",
    ),
    Definition(
        "recovered_by_attempt",
        "Recovered by attempt number",
        "Cases that closed as recovered in the period, by the number of the successful attempt on the"
        " invoice (the first payment is number 1). Paid without an attempt known here counts as outside.",
        "share of recovered cases",
    ),
    Definition(
        "success_given_tried",
        "Success when tried",
        "Of the charge attempts with this number made in the period that have an outcome, the share that succeeded.",
        "percent of attempts",
    ),
    Definition(
        "time_to_recover",
        "Time to recover",
        "From the opening of a case to its closing as recovered, for cases opened in the period. The bars"
        " are shares of all cases opened; cases that are still open or were not recovered are shown apart."
        " The percentiles are of recovered cases only, known to the hour within three days and then to six hours; they"
        " can still grow while cases are open.",
        "share of cases; days",
    ),
    Definition(
        "recent_activity",
        "Recent activity",
        "The newest entries of the invoices' histories that change money, plans or what people must do.",
        "events",
    ),
    Definition(
        "upcoming_retries",
        "Upcoming retries",
        "Booked retries, soonest first. Each also holds its customer's only retry slot; other invoices of"
        " that customer queue behind it.",
        "retries",
    ),
    Definition(
        "must_be_zero",
        "Must be zero",
        "Promises of this service as counters, computed from the ledger itself. Anything but zero is a"
        " fault to look into today.",
        "cases of a broken promise",
    ),
    Definition(
        "after_hard_decline",
        "Retries after a hard decline",
        "Automatic attempts of this service in the period on a token and card that had been hard declined"
        " before, without a success, a card update or a try by a person in between.",
        "attempts",
    ),
    Definition(
        "over_network_rule",
        "Attempts over a network's rule",
        "Attempts of this service in the period that were made although the card or invoice had already"
        " used up a limit of its network that was in force then, counted over the exact window before the"
        " attempt.",
        "attempts",
    ),
    Definition(
        "paid_beyond_amount",
        "Paid beyond the amount",
        "Invoices on which captured payments, less what was given back, exceed what was owed.",
        "invoices",
    ),
    Definition(
        "without_next_step",
        "Open without a next step",
        "Open cases whose next step has nothing behind it (a booked retry without a retry job, a staff case"
        " without a question to staff, ...), and invoices in processing that nothing works on.",
        "invoices",
    ),
    Definition(
        "recovery_source",
        "What recoveries are put down to",
        "Cases recovered in the period, each put down to one source by the first rule that holds. Staff: staff asked"
        " for the charge that paid. Message: the payer had opened a message's link within seven days before the"
        " payment, or renewed the payment method within seven days after a message. Card update: renewed without a"
        " message. Retry: an automatic retry paid; a message that was only sent changes nothing about that. Outside:"
        " everything else. The money is what came in, before refunds and disputes; the retries report counts it net.",
        "cases; gross money per currency",
    ),
    Definition(
        "message_funnel",
        "Message funnel",
        "Messages sent to customers in the period, and how many of them came as far: delivered (did not bounce),"
        " clicked (their link was opened), updated (the payer gave a payment method, confirmed or paid behind it),"
        " paid (a recovery is put down to them). Opens are not counted: mail programs make them up.",
        "messages",
    ),
    Definition(
        "failure_spikes",
        "Failure spikes",
        "Of the charge attempts with an outcome (or an answer that never came) of a connection, of cards from one"
        " country, or of all, the share that failed, for all or with one decline code. It is compared with the same"
        " subject's last four weeks, first attempts and later ones apart, over the last 1, 3, 6 and 12 hours. An"
        " incident begins when the surplus is beyond chance (4.5 standard deviations, given how much the rate wanders"
        " by itself), and ends after two hours and ten attempts without it. Additional: failed attempts beyond the"
        " usual share.",
        "attempts",
    ),
    Definition(
        "queue_health",
        "Queue and workers",
        "Retries that are due but not yet worked, the age of the newest sign of life of a worker, webhooks"
        " that wait or failed, and deliveries that were given up.",
        "rows; seconds of real time",
    ),
)

DEFINITIONS: Final[Mapping[str, Definition]] = MappingProxyType({one.key: one for one in _ALL})
