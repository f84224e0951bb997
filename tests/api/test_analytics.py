"""The dashboards' figures through the API: the same numbers as the pages, each with its definition, by a fixed number
of queries."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics.definitions import DEFINITIONS
from analytics.period import period_of, zone_of
from analytics.rollups.reading import Figures
from analytics.selectors.cases import cohorts, recovered_money
from tests.api.door import Door
from tests.console.world import World

PAGES = ("overview", "failures", "retries", "policies", "board")


@pytest.fixture
def world(db: None, redis_client: object, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(name="Ann's")
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def fill(world: World, name: str) -> None:
    world.fail(customer=f"cus_{name}a", token=f"tok_{name}a")
    world.fail(customer=f"cus_{name}b", token=f"tok_{name}b", code="expired_card", network="mastercard")
    world.wait(hours=25)
    world.charge("ok")


def test_they_are_what_the_pages_show_and_say_what_they_mean(world: World) -> None:
    fill(world, "x")
    own = Door(merchant=world.merchant)
    told = own.get("/analytics/overview", days=7)
    figures = Figures(world.merchant, period_of(7, world.at, zone_of("UTC")))
    (money,) = recovered_money(figures)
    assert told["figures"]["recovered_net"][0]["net_minor"] == money.net_minor == 4_990
    overall = told["figures"]["cohort_recovery_rate"]["overall"]
    assert (overall["total"], overall["recovered"], overall["rate"]) == (2, 1, cohorts(figures).overall.rate)
    assert [row["amount_minor"] for row in told["figures"]["revenue_at_risk"]] == [4_990]
    codes = own.get("/analytics/failures")["figures"]["top_decline_codes"]
    assert {row["code"]: row["recovered"] for row in codes} == {"insufficient_funds": 1, "expired_card": 0}
    sources = own.get("/analytics/retries")["figures"]["recovered_by_source"]
    assert sources == [{"source_name": "retry", "cases": 1, "net_minor": {"USD": 4_990}}]
    for page in PAGES:
        answer = own.get(f"/analytics/{page}")
        keys = [one["key"] for one in answer["definitions"]]
        assert set(answer["figures"]) <= set(keys), page
        assert all(one["sentence"] == DEFINITIONS[one["key"]].sentence for one in answer["definitions"])


def test_more_rows_cost_no_more_queries(world: World) -> None:
    own = Door(merchant=world.merchant)

    def queries() -> list[int]:
        found = []
        for page in PAGES:
            with CaptureQueriesContext(connection) as captured:
                own.get(f"/analytics/{page}")
            found.append(len(captured))
        return found

    fill(world, "x")
    queries()  # notes when the key was used, which is not done again within a minute
    few = queries()
    for name in ("y", "z"):
        fill(world, name)
    queries()
    assert queries() == few


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"days": "8"}, 400, "validation_failed"),
        ({"month": "1"}, 400, "validation_failed"),
        ({"connection": "con_01m8hp49n0edhsy38r1wgn6pdg"}, 404, "not_found"),
    ],
)
def test_what_nobody_offers_is_refused(world: World, query: dict[str, Any], status: int, code: str) -> None:
    own = Door(merchant=world.merchant)
    assert own.get("/analytics/failures", status=status, **query)["code"] == code
