"""The decline tables are complete, checked, and forgiving about how a code is spelt."""

from datetime import timedelta

import pytest

from providers.categories import Category, RetryClass, Scope
from providers.decline_tables import (
    NETWORK_TABLES,
    DeclineTableError,
    decline_table,
    decline_tables,
    network_table,
    providers_with_tables,
    read_table,
)

HEADER = "code,category,retry,scope,actor,flags,note,source\n"
ROW = "a,SOFT_DECLINE,later,token,machine,,A note,somewhere\n"


def test_the_shipped_tables():
    sizes = {name: len(decline_table(name)) for name in providers_with_tables()}
    assert sizes.keys() >= {
        "adyen",
        "authorize_net",
        "braintree",
        "chargebee",
        "checkout_com",
        "generic",
        "gocardless",
        "hyperswitch",
        "paddle",
        "paypal",
        "recurly",
        "sandbox",
        "stripe",
    }
    assert (sizes["stripe"], sizes["paypal"], sizes["checkout_com"]) == (144, 185, 193)
    assert {name: len(network_table(name)) for name in NETWORK_TABLES} == {
        "visa": 50,
        "mastercard_mac": 21,
        "iso8583": 83,
        "ach": 71,
        "sepa": 38,
        "bacs": 19,
    }


def test_retry_class_and_category_never_contradict_each_other():
    tables = [decline_table(name) for name in providers_with_tables()] + [
        network_table(name) for name in NETWORK_TABLES
    ]
    for table in tables:
        for row in table.values():
            if row.category is Category.HARD_DECLINE:
                assert row.retry in (RetryClass.NEVER, RetryClass.AFTER_CUSTOMER_ACTION), row
            if row.category in (Category.INSUFFICIENT_FUNDS, Category.SERVICE_UNAVAILABLE):
                assert row.retry is RetryClass.LATER, row
            if row.stop:
                assert (row.category, row.retry) == (Category.HARD_DECLINE, RetryClass.NEVER), row
            if row.scope is Scope.CONNECTION:
                assert row.category not in (
                    Category.HARD_DECLINE,
                    Category.SOFT_DECLINE,
                    Category.FRAUD_FLAGGED,
                ), row


def test_codes_are_found_by_range_and_by_prefix():
    braintree = decline_table("braintree")
    assert braintree["2500"].code == braintree["2999"].code == "2109-2999"
    assert braintree["2108"].code == "2108"
    assert "3001" not in braintree
    adyen = decline_table("adyen")
    assert adyen["validation 101 Invalid card number"].unsent
    assert adyen["EXPIRED card"].category is Category.HARD_DECLINE


def test_the_simulator_speaks_the_sandboxs_codes():
    assert decline_table("simulator") == decline_table("sandbox")


@pytest.mark.parametrize("name", ["nobody", "", "../networks", "stripe/../stripe", "."])
def test_a_provider_without_a_table_is_named(name):
    with pytest.raises(DeclineTableError, match=r"no decline table|is no provider name"):
        decline_table(name)
    with pytest.raises(DeclineTableError, match="no network table"):
        network_table("mars")


def test_a_table_is_read_once():
    assert decline_tables("stripe") is decline_tables("stripe")


def test_a_row_is_read_with_its_flags(tmp_path):
    path = tmp_path / "declines.csv"
    path.write_text(HEADER + "x,HARD_DECLINE,never,token,customer,stop lasting wait=36h,Gone,Some bulletin\n")
    row = read_table(path, "mine")["X "]
    assert (row.stop, row.lasting, row.look_up, row.unsent, row.wait) == (
        True,
        True,
        False,
        False,
        timedelta(hours=36),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("code,category\n", "must start with the columns code,category,retry"),
        (HEADER + ROW.replace("SOFT_DECLINE", "SOFT"), "line 2 has 'SOFT'; use one of HARD_DECLINE"),
        (HEADER + ROW.replace("later", "sometimes"), "line 2 has 'sometimes'; use one of never"),
        (HEADER + ROW.replace("token", "planet"), "use one of invoice, token, connection"),
        (HEADER + ROW.replace("machine", "nobody"), "use one of machine, customer"),
        (HEADER + ROW + ROW.upper().replace("LATER", "later"), "line 3|twice"),
        (HEADER + ROW + ROW, "lists the code 'a' twice"),
        (HEADER + ROW.replace("machine,,", "machine,soon,"), "flags 'soon'"),
        (HEADER + ROW.replace("machine,,", "machine,lasting,"), "lasting without being a stop"),
        (HEADER + ROW.replace("machine,,", "machine,wait=soon,"), "wait is 'soon', which is no duration"),
        (HEADER + ROW.replace("machine,,", "machine,wait=1h wait=2h,"), "one wait=24h"),
        (HEADER + ROW.replace("A note", ""), "needs a code, a note and a source"),
        (HEADER + "a,SOFT_DECLINE,later\n", "exactly 8 columns"),
        (HEADER + ROW.strip() + ",more\n", "exactly 8 columns"),
    ],
)
def test_mistakes_in_a_table_name_the_line(tmp_path, text, message):
    path = tmp_path / "declines.csv"
    path.write_text(text)
    with pytest.raises(DeclineTableError, match=message):
        read_table(path, "mine")
