"""Figures about cases, computed from histories that came in through the front doors."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from analytics.period import Period, period_of
from analytics.rollups.reading import Figures
from analytics.selectors.cases import (
    AtRisk,
    cohorts,
    recovered_money,
    revenue_at_risk,
    time_to_recover,
)
from invoices.models import Invoice
from invoices.states import TransactionKind
from providers.base import DisputeFacts, DisputeStatus, RefundFacts, RefundStatus
from retries.states import NextStep
from tests.console.world import World

UTC_ZONE = ZoneInfo("UTC")


def last(days: int, world: World, zone: ZoneInfo = UTC_ZONE) -> Period:
    return period_of(days, world.at, zone)


def at_risk(world: World) -> AtRisk:
    return revenue_at_risk(Figures(world.merchant, last(30, world)))


def recover(world: World, **facts: object) -> Invoice:
    """A failure that is recovered by the first retry, a day later."""
    invoice = world.fail(**facts)  # type: ignore[arg-type]
    world.wait(hours=25)
    world.charge("ok")
    return world.again(invoice)


def charge_of(invoice: Invoice) -> str:
    paid = invoice.attempts.get(kind=TransactionKind.CHARGE, status="SUCCEEDED")
    assert paid.provider_id
    return paid.provider_id


def test_nothing_is_at_risk_before_anything_failed(world: World) -> None:
    risk = at_risk(world)
    assert (risk.steps, risk.currencies, risk.cases()) == ((), [], 0)


def test_revenue_at_risk_is_what_is_due_per_currency_and_step(world: World) -> None:
    world.fail(customer="cus_ann", token="tok_a", amount=4_990)
    world.fail(customer="cus_ben", token="tok_b", amount=1_000, code="expired_card")
    world.fail(customer="cus_eva", token="tok_c", amount=500, currency="JPY")
    risk = at_risk(world)
    assert risk.currencies == ["USD", "JPY"]
    assert [(row.step, row.amount_minor, row.cases) for row in risk.of("USD")] == [
        (NextStep.BOOKED, 4_990, 1),
        (NextStep.CUSTOMER, 1_000, 1),
    ]
    assert risk.total_minor("USD") == 5_990
    assert risk.total_minor("JPY") == 500
    assert (risk.cases(), risk.cases(NextStep.BOOKED), risk.cases(NextStep.STAFF)) == (3, 2, 0)


def test_a_part_payment_leaves_only_the_rest_at_risk(world: World) -> None:
    invoice = world.fail(amount=5_000)
    world.pay(invoice, amount=2_000)
    assert at_risk(world).total_minor("USD") == 3_000
    Invoice.objects.filter(pk=invoice.pk).update(amount_minor=9_000, credited_minor=500, currency="EUR")
    assert [(row.currency, row.amount_minor) for row in at_risk(world).steps] == [("EUR", 6_500)]


def test_another_merchants_cases_are_in_no_figure(world: World) -> None:
    other = World(name="Other", at=world.at)
    other.fail()
    period = last(30, world)
    assert at_risk(world).steps == ()
    assert cohorts(Figures(world.merchant, period)).overall.total == 0
    assert time_to_recover(Figures(world.merchant, period)).total == 0
    assert at_risk(other).cases() == 1


def test_cohort_rate_keeps_open_and_ended_cases_in_the_denominator(world: World) -> None:
    recover(world, customer="cus_a", token="tok_a", amount=3_000)
    world.fail(customer="cus_b", token="tok_b", amount=1_000)
    lost = world.fail(customer="cus_c", token="tok_c", amount=2_000)
    world.pay(lost, amount=2_000)  # paid outside: recovered as well
    found = cohorts(Figures(world.merchant, last(7, world)))
    assert (found.overall.total, found.overall.recovered, found.overall.open, found.overall.lost) == (3, 2, 1, 0)
    assert found.overall.rate == 2 / 3
    assert not found.overall.final
    dollars = found.by_currency["USD"]
    assert (dollars.amount_minor, dollars.recovered_minor) == (6_000, 5_000)
    assert dollars.amount_rate == 5 / 6


def test_rates_by_amount_are_never_mixed_between_currencies(world: World) -> None:
    recover(world, customer="cus_a", token="tok_a", amount=3_000, currency="EUR")
    world.fail(customer="cus_b", token="tok_b", amount=700_000, currency="JPY")
    found = cohorts(Figures(world.merchant, last(7, world)))
    assert found.by_currency["EUR"].amount_rate == 1.0
    assert found.by_currency["JPY"].amount_rate == 0.0
    assert set(found.by_currency) == {"EUR", "JPY"}


def test_cases_opened_before_the_period_are_not_in_its_cohort(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a")
    world.wait(days=8)
    world.fail(customer="cus_b", token="tok_b")
    found = cohorts(Figures(world.merchant, last(7, world)))
    assert found.overall.total == 1
    assert cohorts(Figures(world.merchant, last(30, world))).overall.total == 2


def test_cohort_days_are_the_merchants_days(world: World) -> None:
    world.at = datetime(2026, 11, 19, 23, 30, tzinfo=UTC)  # the 20th in Paris
    world.fail()
    world.wait(hours=10)
    in_utc = cohorts(Figures(world.merchant, last(7, world))).by_bucket
    in_paris = cohorts(Figures(world.merchant, last(7, world, ZoneInfo("Europe/Paris")))).by_bucket
    assert [day for day, tally in in_utc.items() if tally.total] == [date(2026, 11, 19)]
    assert [day for day, tally in in_paris.items() if tally.total] == [date(2026, 11, 20)]
    assert len(in_utc) == 7


def test_longer_periods_are_told_by_week(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a")  # Friday, 20 November 2026
    found = cohorts(Figures(world.merchant, last(30, world))).by_bucket
    assert {day: tally.total for day, tally in found.items() if tally.total} == {date(2026, 11, 16): 1}


def test_recovered_money_counts_by_the_day_a_case_closed(world: World) -> None:
    recover(world, amount=4_000)
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert (money.currency, money.cases, money.gross_minor, money.back_minor, money.net_minor) == (
        "USD",
        1,
        4_000,
        0,
        4_000,
    )
    assert money.net_by_day == {world.at.date(): 4_000}


def test_refunds_lower_what_was_recovered_but_not_below_zero(world: World) -> None:
    invoice = recover(world, amount=4_000)
    kept = recover(world, customer="cus_ben", token="tok_b", amount=1_000)
    world.refund(
        RefundFacts(
            id="re_1", amount_minor=1_500, currency="USD", status=RefundStatus.SUCCEEDED, charge_id=charge_of(invoice)
        )
    )
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert (money.gross_minor, money.back_minor, money.net_minor) == (5_000, 1_500, 3_500)
    world.refund(
        RefundFacts(
            id="re_2", amount_minor=1_000, currency="USD", status=RefundStatus.SUCCEEDED, charge_id=charge_of(kept)
        )
    )
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert money.net_minor == 2_500


def test_a_failed_refund_lowers_nothing(world: World) -> None:
    invoice = recover(world, amount=4_000)
    world.refund(
        RefundFacts(
            id="re_1", amount_minor=4_000, currency="USD", status=RefundStatus.FAILED, charge_id=charge_of(invoice)
        )
    )
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert money.net_minor == 4_000


def test_a_payment_lost_in_a_dispute_is_taken_off_once_even_if_it_is_recovered_again(world: World) -> None:
    invoice = recover(world, amount=4_000)
    charge = charge_of(invoice)
    world.wait(days=1)
    for status in (DisputeStatus.OPEN, DisputeStatus.LOST):
        world.dispute(
            charge, DisputeFacts(id="dp_1", amount_minor=4_000, currency="USD", status=status, charge_id=charge)
        )
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert (money.cases, money.net_minor) == (1, 0)
    world.wait(days=1)
    world.pay(world.again(invoice))
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert (money.cases, money.gross_minor, money.back_minor, money.net_minor) == (2, 8_000, 4_000, 4_000)


def test_partial_losses_and_refunds_of_several_episodes_add_up_to_the_money_kept(world: World) -> None:
    invoice = recover(world, amount=4_000)
    charge = charge_of(invoice)
    world.wait(days=1)
    for status in (DisputeStatus.OPEN, DisputeStatus.LOST):
        world.dispute(
            charge, DisputeFacts(id="dp_1", amount_minor=1_000, currency="USD", status=status, charge_id=charge)
        )
    world.wait(days=1)
    world.pay(world.again(invoice), amount=1_000)
    world.wait(days=1)
    world.refund(
        RefundFacts(id="re_1", amount_minor=2_500, currency="USD", status=RefundStatus.SUCCEEDED, charge_id=charge)
    )
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    # 4,000 came in, 1,000 was lost and came in again, 2,500 were given back.
    assert (money.cases, money.gross_minor, money.back_minor, money.net_minor) == (2, 5_000, 3_500, 1_500)


def test_what_was_lost_before_the_period_does_not_lower_what_came_in_later(world: World) -> None:
    invoice = recover(world, amount=4_000)
    charge = charge_of(invoice)
    for status in (DisputeStatus.OPEN, DisputeStatus.LOST):
        world.dispute(
            charge, DisputeFacts(id="dp_1", amount_minor=4_000, currency="USD", status=status, charge_id=charge)
        )
    world.wait(days=10)
    world.pay(world.again(invoice))
    (money,) = recovered_money(Figures(world.merchant, last(7, world)))
    assert (money.cases, money.gross_minor, money.back_minor) == (1, 4_000, 0)


def test_time_to_recover_sets_open_and_ended_cases_apart(world: World) -> None:
    recover(world, customer="cus_a", token="tok_a")  # 25 hours
    slow = world.fail(customer="cus_b", token="tok_b", code="expired_card")
    world.wait(days=10)
    world.pay(slow)
    world.fail(customer="cus_c", token="tok_c")
    found = time_to_recover(Figures(world.merchant, last(30, world)))
    assert dict(found.buckets) == {
        "Within 1 day": 0,
        "1 to 3 days": 1,
        "3 to 7 days": 0,
        "7 to 14 days": 1,
        "14 to 28 days": 0,
        "Over 28 days": 0,
    }
    assert (found.recovered, found.open, found.ended, found.total) == (2, 1, 0, 3)
    assert (found.median_days, found.p75_days, found.p90_days) == (25 / 24, 10, 10)


def test_time_to_recover_without_recoveries_has_no_percentiles(world: World) -> None:
    world.fail()
    found = time_to_recover(Figures(world.merchant, last(30, world)))
    assert (found.median_days, found.p75_days, found.p90_days) == (None, None, None)
    assert (found.open, found.total) == (1, 1)


def test_days_after_the_period_are_not_in_it(world: World) -> None:
    before = last(7, world)
    world.wait(days=1)
    world.fail()
    assert cohorts(Figures(world.merchant, before)).overall.total == 0
    assert cohorts(Figures(world.merchant, last(7, world))).overall.total == 1
