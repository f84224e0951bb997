"""Where payers are led at a provider, and what the test providers' forms come to."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from json import dumps
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qsl

import pytest

from providers import registry
from providers.base import ChargeRequest, Outcome, ProviderUnavailable
from providers.payer import PayerPages, TrialCard, TrialForm
from tests.contract.wire.chargebee import Chargebee
from tests.contract.wire.recurly import Recurly
from tests.contract.wire.server import Imitation
from tests.support.sandbox import Sandbox, sandbox_running

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
Asked = list[tuple[str, str, dict[str, str]]]


@pytest.fixture
def stripe() -> Iterator[tuple[PayerPages, Asked, dict[str, object]]]:
    """Stripe's pages at a server that answers with what the test puts in, and what it was asked."""
    asked: Asked = []
    answer: dict[str, object] = {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            asked.append((self.command, self.path, dict(parse_qsl(body))))
            told = dumps(answer.get("body", {})).encode()
            self.send_response(int(str(answer["status"])))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        pages = registry.payer("stripe", {"api_key": "sk_test_1", "base_url": url, "timeout_seconds": 5})
        assert isinstance(pages, PayerPages)
        yield pages, asked, answer
        server.shutdown()


def test_stripes_customers_are_led_to_their_portal_and_back(
    stripe: tuple[PayerPages, Asked, dict[str, object]],
) -> None:
    pages, asked, answer = stripe
    answer["body"] = {"object": "billing_portal.session", "url": "https://billing.stripe.com/p/session/x"}
    assert (
        pages.method_page(customer="cus_1", return_url="https://r/pay/t/") == "https://billing.stripe.com/p/session/x"
    )
    ((method, path, sent),) = asked
    assert (method, path) == ("POST", "/v1/billing_portal/sessions")
    assert (sent["customer"], sent["return_url"]) == ("cus_1", "https://r/pay/t/")
    assert sent["flow_data[type]"] == "payment_method_update"
    assert sent["flow_data[after_completion][redirect][return_url]"] == "https://r/pay/t/"


def test_confirmation_happens_on_stripes_hosted_invoice(stripe: tuple[PayerPages, Asked, dict[str, object]]) -> None:
    pages, asked, answer = stripe
    answer["body"] = {"object": "invoice", "hosted_invoice_url": "https://invoice.stripe.com/i/1"}
    assert pages.confirm_page(customer="cus_1", invoice="in_1", return_url="r") == "https://invoice.stripe.com/i/1"
    assert pages.confirm_page(customer="cus_1", invoice="", return_url="r") == ""
    answer["body"] = {"object": "invoice", "hosted_invoice_url": "javascript:alert(1)"}
    assert pages.confirm_page(customer="cus_1", invoice="in_1", return_url="r") == ""
    assert [path for _, path, _ in asked] == ["/v1/invoices/in_1"] * 2
    answer["status"] = 500
    with pytest.raises(ProviderUnavailable):
        pages.method_page(customer="cus_1", return_url="r")


def pages_at(wire: Imitation, **settings: str) -> PayerPages:
    pages = registry.payer(wire.provider, {**wire.config, **settings, "base_url": wire.url})
    assert isinstance(pages, PayerPages)
    return pages


def test_chargebees_customers_get_a_page_of_their_own_and_come_back() -> None:
    with Chargebee() as wire:
        assert isinstance(wire, Chargebee)
        pages, back = pages_at(wire), "https://r/pay/t/"
        there = "https://acme-test.chargebee.com/pages/v4/hp_1/"
        assert pages.method_page(customer="cus_1", return_url=back) == f"{there}manage_payment_sources"
        assert wire.leads_to == back
        assert pages.confirm_page(customer="cus_1", invoice="in_1", return_url=back) == f"{there}collect_now"
        with pytest.raises(ProviderUnavailable):
            pages.method_page(customer="cus_2", return_url=back)


@pytest.mark.parametrize(("region", "host"), [("us", "acme.recurly.com"), ("eu", "acme.eu.recurly.com")])
def test_recurlys_customers_are_led_to_their_hosted_account(region: str, host: str) -> None:
    with Recurly() as wire:
        pages = pages_at(wire, region=region)
        there = f"https://{host}/account/a92468579e9c4231"
        assert pages.method_page(customer="cus_1", return_url="r") == there
        assert pages.confirm_page(customer="cus_1", invoice="1001", return_url="r") == there
        assert pages.method_page(customer="cus_2", return_url="r") == ""


@pytest.fixture(params=["simulator", "sandbox"])
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    if request.param == "simulator":
        yield "simulator", {"ledger": str(tmp_path / "simulator.sqlite3")}
        return
    with sandbox_running(tmp_path) as running:
        sandbox: Sandbox = running
        yield "sandbox", {"base_url": sandbox.url, "timeout_seconds": 5}


def test_test_cards_behave_as_chosen_and_a_confirmation_lets_the_charge_through(
    trial: tuple[str, dict[str, object]],
) -> None:
    name, config = trial
    form, client = registry.payer(name, config), registry.client(name, config)
    assert isinstance(form, TrialForm)
    serial = iter(range(100))

    def charge(token: str) -> tuple[Outcome, str]:
        number = next(serial)
        result = client.charge(
            ChargeRequest(
                amount_minor=100,
                currency="EUR",
                token=token,
                customer="cus_1",
                reference=f"att_{number}",
                idempotency_key=f"key_{number}",
                metadata={"at": AT.isoformat()},
            )
        )
        return result.outcome, result.decline.raw_code if result.decline else ""

    cards = {card: form.card_add(card, serial="abc1", at=AT) for card in TrialCard}
    assert len({method.card.fingerprint for method in cards.values() if method.card}) == 3
    assert all(method.is_default for method in cards.values())
    assert charge(cards[TrialCard.OK].token) == (Outcome.SUCCEEDED, "")
    assert charge(cards[TrialCard.EXPIRED].token) == (Outcome.DECLINED, "expired_card")
    if name == "sandbox":
        assert charge(cards[TrialCard.FUNDS].token) == (Outcome.DECLINED, "insufficient_funds")
    asks = "tok_decline_authentication_required__z1"
    assert charge(asks) == (Outcome.DECLINED, "authentication_required")
    form.confirm(asks)
    assert charge(asks) == (Outcome.SUCCEEDED, "")
