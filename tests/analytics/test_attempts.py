from datetime import date
from zoneinfo import ZoneInfo

from analytics import presentation
from analytics.period import Period, period_of
from analytics.rollups.reading import Figures
from analytics.selectors.attempts import failures_by_day, recovered_by_number, top_decline_codes
from tests.console.world import World


def last(days: int, world: World) -> Period:
    return period_of(days, world.at, ZoneInfo("UTC"))


def test_failures_are_counted_per_day_and_category(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a", code="insufficient_funds")
    world.fail(customer="cus_b", token="tok_b", code="expired_card")
    world.wait(hours=25)
    world.charge("insufficient_funds")
    found = failures_by_day(Figures(world.merchant, last(7, world)))
    assert dict(found.totals) == {"INSUFFICIENT_FUNDS": 2, "HARD_DECLINE": 1}
    assert found.days[date(2026, 11, 20)] == {"INSUFFICIENT_FUNDS": 1, "HARD_DECLINE": 1}
    assert found.days[date(2026, 11, 21)] == {"INSUFFICIENT_FUNDS": 1}
    assert found.total == 3
    assert len(found.days) == 7


def test_successes_and_unknown_results_are_no_failures(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a")
    world.wait(hours=25)
    world.charge("lost")
    assert failures_by_day(Figures(world.merchant, last(7, world))).total == 1


def test_charges_that_did_not_happen_are_failures_too(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a")
    world.wait(hours=25)
    world.charge("unsent")
    assert dict(failures_by_day(Figures(world.merchant, last(7, world))).totals) == {
        "INSUFFICIENT_FUNDS": 1,
        "NETWORK_ERROR": 1,
    }


def test_codes_count_attempts_and_the_cases_that_began_with_them(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a", code="insufficient_funds")
    world.fail(customer="cus_b", token="tok_b", code="insufficient_funds")
    world.wait(hours=25)
    for attempt in world.send():
        world.answer(attempt, "insufficient_funds")
    world.fail(customer="cus_c", token="tok_c", code="expired_card")
    codes = top_decline_codes(Figures(world.merchant, last(7, world)))
    assert [(code.code, code.category, code.provider, code.attempts, code.cases) for code in codes] == [
        ("insufficient_funds", "INSUFFICIENT_FUNDS", "simulator", 4, 2),
        ("expired_card", "HARD_DECLINE", "simulator", 1, 1),
    ]


def test_recoveries_stand_at_the_attempt_that_brought_the_money(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a")
    world.wait(hours=25)
    world.charge("ok")
    world.fail(customer="cus_b", token="tok_b")
    world.wait(hours=25)
    world.charge("insufficient_funds")
    world.wait(hours=25)
    world.charge("ok")
    found = recovered_by_number(Figures(world.merchant, last(7, world)))
    assert [(row.number, row.tried, row.succeeded, row.recovered) for row in found.rows] == [
        (1, 2, 0, 0),
        (2, 2, 1, 1),
        (3, 1, 1, 1),
    ]
    assert (found.outside, found.recovered) == (0, 2)
    lines = presentation.number_lines(found)
    assert [(line.label, line.share, line.running, line.success) for line in lines] == [
        ("Attempt 1", "0 %", "0 %", "0 %"),
        ("Attempt 2", "50 %", "50 %", "50 %"),
        ("Attempt 3", "50 %", "100 %", "100 %"),
    ]


def test_nothing_tried_gives_no_lines(world: World) -> None:
    found = recovered_by_number(Figures(world.merchant, last(7, world)))
    assert (found.rows, found.recovered) == ((), 0)
    assert presentation.number_lines(found) == []


def test_other_merchants_attempts_are_not_counted(world: World) -> None:
    other = World(name="Other", at=world.at)
    other.fail()
    period = last(7, world)
    assert failures_by_day(Figures(world.merchant, period)).total == 0
    assert top_decline_codes(Figures(world.merchant, period)) == []
    assert recovered_by_number(Figures(world.merchant, period)).rows == ()


def test_failure_chart_stacks_categories_in_one_order_and_totals_agree(world: World) -> None:
    world.fail(customer="cus_a", token="tok_a", code="insufficient_funds")
    world.fail(customer="cus_b", token="tok_b", code="expired_card")
    period = last(7, world)
    found = failures_by_day(Figures(world.merchant, period))
    chart = presentation.failure_chart(found)
    assert [series.key for series in chart.series] == ["hard_decline", "insufficient_funds"]
    assert chart.total == found.total == 2
    legend = presentation.failure_legend(found, period)
    assert [(line.name, line.attempts, line.query) for line in legend] == [
        ("Hard decline", 1, "category=HARD_DECLINE&failed=7"),
        ("Insufficient funds", 1, "category=INSUFFICIENT_FUNDS&failed=7"),
    ]
    assert presentation.chart_rows(chart) == [("20 Nov", {"Hard decline": 1, "Insufficient funds": 1}, 2)]
