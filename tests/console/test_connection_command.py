"""The command line that connects a merchant to a provider."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.services import merchant_create
from invoices.models import Connection
from invoices.selectors.parties import connection_config

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _merchant(db: None) -> None:
    merchant_create(name="Acme")


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("connection", *arguments, stdout=out)
    return out.getvalue()


def test_create_prints_one_json_object_and_encrypts_the_key() -> None:
    config = json.dumps({"api_key": "sk_live_secret", "base_url": "http://127.0.0.1:9", "mode": "charge"})
    answer = json.loads(run("create", "--merchant", "Acme", "--provider", "sandbox", "--config", config, "--json"))
    connection = Connection.objects.get()
    assert answer == {"connection": connection.public_id}
    assert (connection.provider, connection.mode, connection.base_url) == ("sandbox", "charge", "http://127.0.0.1:9")
    assert "sk_live_secret" not in connection.secrets_encrypted
    assert connection_config(connection)["api_key"] == "sk_live_secret"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--merchant", "Nobody", "--provider", "generic"), "There is no merchant 'Nobody'"),
        (("--merchant", "Acme", "--provider", "paypall"), "Unknown provider 'paypall'; use one of "),
        (("--merchant", "Acme", "--provider", "generic", "--config", "{not json"), "--config must be a JSON object"),
        (("--merchant", "Acme", "--provider", "generic", "--config", "[1]"), "--config must be a JSON object"),
        (("--merchant", "Acme", "--provider", "generic", "--config", '{"mode": "x"}'), "mode must be one of"),
        (
            ("--merchant", "Acme", "--provider", "generic", "--config", '{"mode": "charge"}'),
            "cannot be used in mode charge",
        ),
    ],
)
def test_mistakes_end_in_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        run("create", *arguments, "--json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Connection.objects.exists()


@pytest.mark.parametrize(
    ("provider", "config", "message"),
    [
        ("adyen", {"api_key": "AQEsecret"}, "needs merchant_account (the name of the merchant account"),
        (
            "adyen",
            {"api_key": "AQEsecret", "merchantAccount": "A"},
            "no setting 'merchantAccount'; they know mode",
        ),
        (
            "chargebee",
            {"site": "acme", "api_key": "geh\u00e4im_secret"},
            "api_key of the Chargebee connection cannot",
        ),
        ("hyperswitch", {"api_key": "snd_secret", "timeout_seconds": 31}, "must be a number from 0.1 to 30"),
        ("recurly", {"api_key": "secret", "region": "asia"}, "region of the Recurly connection must be one of us, eu"),
        ("paddle", {"mode": "charge"}, "Paddle cannot be used in mode charge; use observe"),
        ("stripe", {"api_key": "sk_secret", "base_url": "https://u:secret@api.stripe.com"}, "is no address of an API"),
    ],
)
def test_each_provider_says_what_it_needs_and_never_shows_a_key(
    provider: str, config: dict[str, object], message: str
) -> None:
    with pytest.raises(CommandError) as caught:
        run("create", "--merchant", "Acme", "--provider", provider, "--config", json.dumps(config), "--json")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not Connection.objects.exists()


def test_watching_needs_no_credentials() -> None:
    for provider in ("stripe", "hyperswitch", "adyen", "braintree", "paddle", "chargebee", "recurly", "generic"):
        run("create", "--merchant", "Acme", "--provider", provider, "--config", '{"mode": "observe"}', "--json")
    assert set(Connection.objects.values_list("mode", flat=True)) == {"observe"}


def test_a_broken_config_is_not_repeated_in_the_error() -> None:
    with pytest.raises(CommandError) as caught:
        run("create", "--merchant", "Acme", "--provider", "generic", "--config", '{"api_key": "sk_live_secret"')
    assert "sk_live_secret" not in str(caught.value)


def test_list_shows_connections_without_their_secrets() -> None:
    config = json.dumps({"api_key": "sk_live_secret", "base_url": "http://127.0.0.1:9"})
    run("create", "--merchant", "Acme", "--provider", "sandbox", "--config", config, "--name", "Main")
    text = run("list", "--merchant", "Acme", "--json")
    (row,) = json.loads(text)["connections"]
    assert (row["name"], row["provider"], row["mode"], row["enabled"]) == ("Main", "sandbox", "charge", True)
    assert "sk_live_secret" not in text
    assert run("list", "--merchant", "Acme").endswith("  Main  charge, enabled\n")
