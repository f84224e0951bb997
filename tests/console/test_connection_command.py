"""The command line that connects a merchant to a provider."""

import json
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.services import merchant_create
from invoices.models import Connection
from invoices.selectors.parties import connection_config
from tests.contract.wire.hyperswitch import Hyperswitch
from tests.contract.wire.server import SECRET

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


@pytest.fixture(scope="module")
def gateway() -> Iterator[Hyperswitch]:
    with Hyperswitch() as server:
        assert isinstance(server, Hyperswitch)
        yield server


def connected(gateway: Hyperswitch) -> str:
    config = json.dumps({**gateway.config, "base_url": gateway.url})
    made = run("create", "--merchant", "Acme", "--provider", "hyperswitch", "--config", config, "--json")
    return str(json.loads(made)["connection"])


def test_check_asks_the_provider_with_the_credentials_that_are_kept(gateway: Hyperswitch) -> None:
    named = ("--merchant", "Acme", "--connection", connected(gateway))
    assert run("check", *named).startswith("Hyperswitch answers")
    told = json.loads(run("check", *named, "--json"))
    assert (told["connection"], told["answer"]) == (named[-1], run("check", *named).strip())
    with pytest.raises(CommandError, match="no connection con_other"):
        run("check", "--merchant", "Acme", "--connection", "con_other")
    watching = json.loads(run("create", "--merchant", "Acme", "--provider", "generic", "--json"))["connection"]
    with pytest.raises(CommandError, match="no credentials to test"):
        run("check", "--merchant", "Acme", "--connection", watching)


def test_rekey_keeps_new_credentials_only_once_the_provider_has_taken_them(gateway: Hyperswitch) -> None:
    named = ("--merchant", "Acme", "--connection", connected(gateway))
    connection = Connection.objects.get(public_id=named[-1])
    Connection.objects.update(paused_reason="Its key was refused.")
    for config, message in (
        ('{"api_key": "of_somebody_else"}', "refuses the credentials"),
        ('{"base_url": "http://127.0.0.1:9"}', "Only secrets can be replaced"),
        ("{}", "Only secrets can be replaced"),
        ("of_somebody_else", "--config must be a JSON object"),
    ):
        with pytest.raises(CommandError, match=message) as caught:
            run("rekey", *named, "--config", config)
        assert "of_somebody_else" not in str(caught.value)
        kept = Connection.objects.get(pk=connection.pk)
        assert (kept.secrets_encrypted, kept.paused_reason) == (connection.secrets_encrypted, "Its key was refused.")
    told = json.loads(run("rekey", *named, "--config", json.dumps({"api_key": SECRET}), "--json"))
    assert (told["connection"], SECRET in repr(told)) == (named[-1], False)
    kept = Connection.objects.get(pk=connection.pk)
    assert (kept.paused_reason, connection_config(kept)["api_key"]) == ("", SECRET)
    assert kept.secrets_encrypted != connection.secrets_encrypted


def test_list_shows_connections_without_their_secrets() -> None:
    config = json.dumps({"api_key": "sk_live_secret", "base_url": "http://127.0.0.1:9"})
    run("create", "--merchant", "Acme", "--provider", "sandbox", "--config", config, "--name", "Main")
    text = run("list", "--merchant", "Acme", "--json")
    (row,) = json.loads(text)["connections"]
    assert (row["name"], row["provider"], row["mode"], row["enabled"]) == ("Main", "sandbox", "charge", True)
    assert "sk_live_secret" not in text
    assert run("list", "--merchant", "Acme").endswith("  Main  charge, enabled\n")
