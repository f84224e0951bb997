"""Spike alerts: one alert per incident, from its start to its end, along the merchant's routes."""

import json
from datetime import datetime, timedelta
from itertools import count

import pytest
from django.core import mail
from django.core.management import call_command
from django.test import Client

from analytics.models import HourRollup, Incident
from analytics.rollups.advance import rollups_build
from analytics.spikes.cause import cause_of, cause_words
from analytics.spikes.detect import Cell, Count, Dimension, Finding, Limits, Subject, group, judge, learn
from analytics.spikes.sweep import spikes_sweep
from analytics.tasks import find_spikes
from notifications.models import Alert, AlertDelivery
from notifications.services.alert_delivery import alert_deliveries_drain, alert_route_set
from notifications.services.alerts import alert_acknowledge
from notifications.states import AlertChannel
from providers.base import CardFacts, CustomerFacts, DeclineFacts, EventKind, InvoiceFacts, MethodFacts, PaymentFacts
from tests.console.world import NOW, World

_serial = count(1)
_FORTNIGHT = 24 * 15


def attempt(world: World, code: str) -> None:
    """The provider tells of a failed first payment with a German card."""
    number = next(_serial)
    world.tell(
        EventKind.PAYMENT_FAILED,
        customer=CustomerFacts(id=f"cus_spike{number}"),
        invoice=InvoiceFacts(id=f"in_spike{number}", amount_minor=900, currency="USD", issued_at=world.at),
        payment=PaymentFacts(
            charge_id=f"ch_spike{number}",
            amount_minor=900,
            currency="USD",
            invoice_id=f"in_spike{number}",
            method=MethodFacts(
                token=f"tok_spike{number}", card=CardFacts(fingerprint=f"fp_{number}", network="visa", country="DE")
            ),
            decline=DeclineFacts(raw_code=code),
        ),
    )


def hours(world: World, first: datetime, number: int, *, attempts: int, failed: int, **facet: str) -> None:
    """What the rollups say of `number` hours; the ledger itself has nothing of them."""
    HourRollup.objects.bulk_create(
        HourRollup(
            merchant=world.merchant,
            connection=world.connection,
            day=hour.date(),
            hour=hour,
            facet=facet.get("facet", "all"),
            key=facet.get("key", ""),
            again=False,
            attempts=attempts,
            failed=failed,
        )
        for hour in (first + timedelta(hours=index) for index in range(number))
    )


@pytest.fixture
def usual(world: World) -> World:
    """Two weeks of four payments an hour of which one fails, and two routes, one of which hears of fraud only."""
    rollups_build(world.merchant)
    hours(world, NOW - timedelta(hours=_FORTNIGHT), _FORTNIGHT, attempts=4, failed=1)
    for name, kinds in (("ops", []), ("fraud", ["fraud"])):
        alert_route_set(
            merchant=world.merchant,
            name=name,
            channel=AlertChannel.MAIL,
            target=f"{name}@example.com",
            kinds=kinds,
            actor="test",
        )
    return world


def sweep(world: World) -> tuple[int, int, int]:
    counts = spikes_sweep(now=world.at)
    return counts.opened, counts.going, counts.ended


def sent(world: World) -> list[str]:
    mail.outbox.clear()
    alert_deliveries_drain(now=world.at)
    return [f"{message.to[0]}: {message.body.splitlines()[0]}" for message in mail.outbox]


def outage(world: World) -> None:
    """Two bad hours, of which the second is running."""
    hours(world, NOW, 2, attempts=8, failed=8)
    world.at = NOW + timedelta(hours=1, minutes=40)


def calm(world: World) -> None:
    hours(world, NOW + timedelta(hours=2), 3, attempts=6, failed=1)
    world.at = NOW + timedelta(hours=4, minutes=30)


def test_an_incident_is_told_once_followed_and_ended_with_a_word_to_whoever_heard(usual: World) -> None:
    usual.at = NOW + timedelta(minutes=10)
    assert sweep(usual) == (0, 0, 0)
    outage(usual)
    assert sweep(usual) == (1, 0, 0)
    alert, incident = Alert.objects.get(), Incident.objects.get()
    assert (incident.subject, incident.started_at) == (Subject(Dimension.CONNECTION, str(usual.connection.pk)), NOW)
    assert alert.text == (
        f"More payments fail than usual, {usual.connection}: since Fri 20 Nov 12:00 UTC 16 of 16 attempts failed"
        " (100 %, usually 25 %). Likely cause: not clear, the additional failures have several reasons."
    )
    assert alert.link == f"/dashboard/incidents/{incident.public_id}/"
    assert sent(usual) == [f"ops@example.com: {alert.text}"]
    usual.wait(minutes=5)
    assert sweep(usual) == (0, 1, 0)
    assert sent(usual) == []
    calm(usual)
    assert sweep(usual) == (0, 0, 1)
    incident.refresh_from_db()
    alert.refresh_from_db()
    assert (incident.ended_at, incident.attempts, incident.failed) == (NOW + timedelta(hours=3), 22, 17)
    assert alert.text.startswith(f"Over since Fri 20 Nov 15:00 UTC, {usual.connection}: in 3 hours 17 of 22 attempts")
    assert (alert.over_at, alert.repeats) == (usual.at, 0)
    assert sent(usual) == [f"ops@example.com: {alert.text}"]
    assert sweep(usual) == (0, 0, 0)
    assert (Alert.objects.count(), Incident.objects.count()) == (1, 1)


def test_an_acknowledged_incident_is_not_raised_again_and_still_ends(usual: World) -> None:
    outage(usual)
    sweep(usual)
    sent(usual)
    alert = Alert.objects.get()
    alert_acknowledge(merchant_pk=usual.merchant.pk, alert_pks=[alert.pk], by="ann", now=usual.at)
    find_spikes()
    calm(usual)
    find_spikes()
    assert Alert.objects.get().over_at == usual.at
    assert AlertDelivery.objects.filter(alert=alert, closing=True).count() == 1


def test_a_route_whose_first_word_has_not_left_gets_only_the_last(usual: World) -> None:
    outage(usual)
    sweep(usual)
    calm(usual)
    sweep(usual)
    assert AlertDelivery.objects.count() == 1
    (told,) = sent(usual)
    assert told.startswith("ops@example.com: Over since ")


def test_what_lasts_a_week_becomes_the_new_normal(usual: World) -> None:
    outage(usual)
    sweep(usual)
    hours(usual, NOW + timedelta(hours=2), 24 * 8, attempts=8, failed=8)
    usual.at = NOW + timedelta(days=7, hours=1)
    assert sweep(usual) == (0, 0, 1)
    assert Incident.objects.get().lasting
    for later in (timedelta(minutes=5), timedelta(hours=20)):
        usual.at += later
        assert sweep(usual) == (0, 0, 0)


def test_one_cause_seen_from_three_sides_is_one_incident(usual: World) -> None:
    """Reported by the provider, rolled up, swept: code, country and connection rise together."""
    hours(usual, NOW - timedelta(hours=_FORTNIGHT), _FORTNIGHT, attempts=4, failed=1, facet="country", key="DE")
    for _ in range(12):
        attempt(usual, "processing_error")
        usual.wait(minutes=1)
    assert sweep(usual) == (1, 0, 0)
    incident = Incident.objects.get()
    assert (incident.name, incident.failed) == ("code processing_error", 12)
    assert {subject.dimension for subject in incident.also_subjects} == {Dimension.CONNECTION, Dimension.COUNTRY}
    assert incident.cause == "Likely cause: a disturbance at the provider."


def test_dry_run_tells_and_changes_nothing(usual: World, capsys: pytest.CaptureFixture[str]) -> None:
    outage(usual)
    call_command("find_spikes", "--once", "--dry-run", "--json", at=usual.at)
    answer = json.loads(capsys.readouterr().out)
    assert [(one["merchant"], one["would"]) for one in answer["would"]] == [("Acme", "open")]
    assert not Incident.objects.exists()
    assert not Alert.objects.exists()


def test_pages_show_incidents_of_ones_own_merchant_only(usual: World, client: Client) -> None:
    outage(usual)
    sweep(usual)
    address = f"/dashboard/incidents/{Incident.objects.get().public_id}/"
    client.force_login(usual.person("viewer"))
    listed = client.get("/dashboard/incidents/").content.decode()
    assert f'href="{address}"' in listed
    assert "Going on" in listed
    page = client.get(address).content.decode()
    assert "16 of 16" in page
    assert f"?failed=7&amp;connection={usual.connection.public_id}" in page
    assert f'href="{address}"' in client.get("/dashboard/").content.decode()
    client.force_login(World(name="Other", at=usual.at).person("owner"))
    assert client.get(address).status_code == 404
    assert address not in client.get("/dashboard/incidents/").content.decode()


# --- the pure parts -----------------------------------------------------------------------------------------------

CODE, CONNECTION, COUNTRY = (
    Subject(Dimension.CODE, "expired_key"),
    Subject(Dimension.CONNECTION, "1"),
    Subject(Dimension.COUNTRY, "FR"),
)


def test_too_little_history_is_no_baseline() -> None:
    hours = {NOW - timedelta(hours=number): Count(1, 0, 0, 0) for number in range(24 * 6)}
    assert learn(hours, since=NOW - timedelta(days=28), until=NOW, skip=[]) is None
    hours |= {NOW - timedelta(days=7): Count(1, 0, 0, 0)}
    assert learn(hours, since=NOW - timedelta(days=28), until=NOW, skip=[]) is not None


def test_a_morning_of_retries_is_no_incident_but_the_same_failures_of_first_attempts_are() -> None:
    hours = {NOW - timedelta(hours=number): Count(4, 1, 4, 3) for number in range(12, 24 * 20)}
    baseline = learn(hours, since=NOW - timedelta(days=28), until=NOW, skip=[])
    assert baseline is not None
    retries, firsts = {NOW: Count(0, 0, 60, 46)}, {NOW: Count(60, 46, 0, 0)}
    assert judge(CONNECTION, retries, baseline, now=NOW, limits=Limits()) is None
    found = judge(CONNECTION, firsts, baseline, now=NOW, limits=Limits())
    assert found is not None
    assert (found.started_at, found.failed, round(found.expected)) == (NOW, 46, 15)


def test_incidents_of_the_past_do_not_excuse_new_ones() -> None:
    hours = {NOW - timedelta(hours=number): Count(4, 1, 0, 0) for number in range(12, 24 * 14)}
    bad = (NOW - timedelta(days=6), NOW - timedelta(days=2))
    hours |= {hour: Count(4, 4, 0, 0) for hour in hours if bad[0] <= hour < bad[1]}
    told, untold = (learn(hours, since=NOW - timedelta(days=28), until=NOW, skip=skip) for skip in ([bad], []))
    assert told is not None
    assert untold is not None
    assert (round(told.first, 2), round(untold.first, 2)) == (0.25, 0.47)


def test_what_shares_its_failures_is_one_incident_and_joins_an_open_one() -> None:
    cells = [
        Cell("1", "FR", "expired_key", "CONFIG_ERROR", 30, 30),
        Cell("1", "DE", "expired_key", "CONFIG_ERROR", 10, 10),
        Cell("2", "BR", "stolen_card", "HARD_DECLINE", 20, 20),
    ]
    apart = Subject(Dimension.COUNTRY, "BR")
    findings = [Finding(one, NOW, 40, 40, 5.0, score) for one, score in ((COUNTRY, 5.0), (CODE, 9.0), (apart, 4.6))]
    assert {leader: len(members) for leader, members in group(findings, [], cells).items()} == {CODE: 2, apart: 1}
    assert list(group(findings, [CONNECTION], cells)) == [CONNECTION, apart]


def test_the_cause_names_what_stands_out_beyond_its_part_of_the_traffic() -> None:
    cells = [
        Cell("1", "FR", "do_not_honor", "SOFT_DECLINE", 30, 28),
        Cell("1", "US", "do_not_honor", "SOFT_DECLINE", 10, 2),
        Cell("1", "US", "", "", 60, 0),
    ]
    usual = {
        CONNECTION: 0.1,
        COUNTRY: 0.1,
        Subject(Dimension.COUNTRY, "US"): 0.05,
        Subject(Dimension.CODE, "do_not_honor"): 0.02,
    }
    cause = cause_of(cells, CONNECTION, usual)
    words = cause_words(cause, CONNECTION, connections={"1": "Stripe"}, countries=2)
    assert words == (
        "Of the additional failures mostly code do_not_honor (100 %), cards from FR (100 %)."
        " Likely cause: banks in FR refuse more than usual."
    )
    mixed = [Cell("1", "US", "stolen_card", category, 20, 20) for category in ("HARD_DECLINE", "SOFT_DECLINE")]
    cause = cause_of(mixed, CONNECTION, {})
    assert "Likely cause: not clear" in cause_words(cause, CONNECTION, connections={"1": "Stripe"}, countries=2)
