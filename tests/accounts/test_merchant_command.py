"""The command line through which the first merchant comes into being."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.keys import key_hash
from accounts.models import ApiKey, Merchant

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("merchant", *arguments, stdout=out)
    return out.getvalue()


def test_create_prints_one_json_object_with_id_and_key() -> None:
    answer = json.loads(run("create", "Acme", "--json"))
    merchant = Merchant.objects.get()
    assert set(answer) == {"merchant", "api_key"}
    assert answer["merchant"] == merchant.public_id
    assert ApiKey.objects.get(merchant=merchant).key_hash == key_hash(answer["api_key"])


def test_create_in_words_shows_the_key_once() -> None:
    text = run("create", "Acme", "--timezone", "Asia/Tokyo")
    assert text.count("rk_") == 1
    assert Merchant.objects.get().timezone == "Asia/Tokyo"


def test_a_taken_name_ends_in_one_clear_line() -> None:
    run("create", "Acme", "--json")
    with pytest.raises(CommandError) as caught:
        run("create", "Acme", "--json")
    assert str(caught.value) == "There is already a merchant named 'Acme'; choose another name."


def test_list_shows_no_secret() -> None:
    run("create", "Acme", "--json")
    merchant = Merchant.objects.get()
    assert json.loads(run("list", "--json")) == {
        "merchants": [{"merchant": merchant.public_id, "name": "Acme", "charging": True}]
    }
