"""What the Stripe client makes of a failing network: surely not sent, or nobody knows. Never sent twice."""

import socket
import ssl
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from providers.base import ChargeRequest, ChargeResult, Outcome, ProviderUnavailable, ProviderUncertain
from providers.stripe.client import StripeClient
from tests.contract.stripe_wire import KEY, Answer, StripeWire, intent

REQUEST = ChargeRequest(
    amount_minor=4900,
    currency="EUR",
    token="pm_1",
    customer="cus_1",
    reference="att_01",
    idempotency_key="key-01",
    metadata={},
)
CREATE = "POST /v1/payment_intents"
NOT_SENT = ChargeResult(outcome=Outcome.ERRORED, error_code="network_error")


@pytest.fixture
def wire() -> Iterator[StripeWire]:
    with StripeWire() as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(_loopback())]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def _loopback() -> "x509.general_name.ipaddress.IPv4Address":
    return x509.general_name.ipaddress.ip_address("127.0.0.1")


@pytest.fixture
def tls_wire(certificate: tuple[Path, Path]) -> Iterator[StripeWire]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with StripeWire(context) as server:
        yield server


# --- surely not sent ------------------------------------------------------------------------------


def test_a_refused_connection_sent_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    client = StripeClient({"api_key": KEY, "base_url": f"http://127.0.0.1:{port}"})
    assert client.charge(REQUEST) == NOT_SENT


def test_a_name_that_does_not_resolve_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    client = StripeClient({"api_key": KEY, "base_url": "https://api.stripe.example"})
    assert client.charge(REQUEST) == NOT_SENT


def test_a_connection_that_is_not_accepted_in_time_sent_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = _fill_backlog(listener.getsockname())
        client = StripeClient(
            {
                "api_key": KEY,
                "base_url": f"http://127.0.0.1:{listener.getsockname()[1]}",
                "timeout_seconds": 1,
            }
        )
        assert client.charge(REQUEST) == NOT_SENT
        for connection in waiting:
            connection.close()


def _fill_backlog(address: tuple[str, int]) -> list[socket.socket]:
    """Connect until nobody more gets in, so that the next one has to wait."""
    waiting = []
    for _ in range(16):
        connection = socket.socket()
        connection.settimeout(0.2)
        waiting.append(connection)
        try:
            connection.connect(address)
        except TimeoutError:
            return waiting
    raise AssertionError("The listening socket accepts more than it was told to.")


def test_a_certificate_that_nobody_vouches_for_gets_nothing(tls_wire: StripeWire) -> None:
    assert tls_wire.client().charge(REQUEST) == NOT_SENT
    assert tls_wire.seen == []


def test_a_server_that_speaks_no_tls_gets_nothing(wire: StripeWire) -> None:
    client = wire.client(base_url=wire.url.replace("http:", "https:"))
    assert client.charge(REQUEST) == NOT_SENT
    assert wire.seen == []


# --- nobody knows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_an_answer_that_breaks_off_is_uncertain(wire: StripeWire, how: str) -> None:
    wire.script(CREATE, Answer(200, intent(), how=how))
    with pytest.raises(ProviderUncertain):
        wire.client().charge(REQUEST)
    assert wire.lines() == [CREATE]


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_an_answer_that_takes_too_long_is_uncertain(wire: StripeWire, how: str) -> None:
    wire.script(CREATE, Answer(200, intent(), how=how))
    with pytest.raises(ProviderUncertain, match="no whole answer"):
        wire.client(timeout_seconds=0.5).charge(REQUEST)
    assert wire.lines() == [CREATE]


def test_a_reset_on_a_connection_in_use_is_uncertain_too(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent()), Answer(how="reset"))
    client = wire.client()
    assert client.charge(REQUEST).outcome is Outcome.SUCCEEDED
    with pytest.raises(ProviderUncertain):
        client.charge(REQUEST)
    assert wire.lines() == [CREATE, CREATE]


def test_an_encrypted_connection_that_is_reset_after_the_request_is_uncertain(
    tls_wire: StripeWire, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    tls_wire.script(CREATE, Answer(200, intent()), Answer(how="reset"))
    client = tls_wire.client()
    assert client.charge(REQUEST).outcome is Outcome.SUCCEEDED
    with pytest.raises(ProviderUncertain):
        client.charge(REQUEST)
    assert tls_wire.lines() == [CREATE, CREATE]


def test_what_was_sent_before_says_nothing_about_the_next_request(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent()), Answer(how="reset"))
    client = wire.client()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    unreachable = StripeClient({"api_key": KEY, "base_url": f"http://127.0.0.1:{port}"})
    assert client.charge(REQUEST).outcome is Outcome.SUCCEEDED
    assert unreachable.charge(REQUEST) == NOT_SENT
    with pytest.raises(ProviderUncertain):
        client.charge(REQUEST)


# --- reads and secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "hang"])
def test_a_read_that_fails_is_only_unavailable(wire: StripeWire, how: str) -> None:
    wire.script("GET /v1/payment_intents/pi_1", Answer(how=how))
    with pytest.raises(ProviderUnavailable, match="asked again later"):
        wire.client(timeout_seconds=0.5).charge_get("pi_1")


@pytest.mark.parametrize(
    "answer", [Answer(how="reset"), Answer(500, b"no: sk_test_of_nobody_at_all"), Answer(200, b"{")]
)
def test_no_traceback_shows_the_key(wire: StripeWire, answer: Answer) -> None:
    wire.script(CREATE, answer)
    with pytest.raises(ProviderUncertain) as caught:
        wire.client().charge(REQUEST)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_client_does_not_show_its_key(wire: StripeWire) -> None:
    client = wire.client()
    assert KEY not in repr(client)
    assert KEY not in repr(vars(client))
