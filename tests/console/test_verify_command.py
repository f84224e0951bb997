"""The command `verify_ledger`, and how its reading behaves."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from invoices.models import Invoice
from recovery_site.console.verification import MUST_BE_ZERO, snapshot, verify
from tests.console.tampering import tamper
from tests.console.world import World


def run(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command("verify_ledger", *arguments, stdout=out, stderr=err)
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_the_command_prints_one_object_and_ends_well(recovered: Invoice) -> None:
    code, out, err = run("--json")
    assert code == 0
    assert json.loads(out) == {
        "ok": True,
        "invoices": 1,
        "problems": [],
        "problems_total": 0,
        "must_be_zero": dict.fromkeys(MUST_BE_ZERO, 0),
    }
    assert err == "1 invoices checked ...\n"


def test_the_command_fails_and_says_what_differs(recovered: Invoice) -> None:
    tamper("UPDATE invoices_invoice SET paid_minor = 1")
    code, out, err = run("--json")
    answer: dict[str, Any] = json.loads(out)
    assert code == 1
    assert answer["ok"] is False
    assert answer["problems"] == [
        {
            "invoice": recovered.public_id,
            "problem": "paid_differs",
            "detail": "paid_minor is 1, the transactions say 4990.",
        }
    ]
    assert err.endswith("breaks a promise: 1 problems, 1 invoices.\n")


def test_the_command_for_people(recovered: Invoice) -> None:
    assert run()[1].startswith("1 invoices checked: all is well.\n")


def test_one_merchant_alone(recovered: Invoice) -> None:
    other = World(name="Other")
    other.fail()
    tamper("UPDATE invoices_invoice SET paid_minor = 1 WHERE id = %s", recovered.pk)
    assert run("--merchant", "Other")[0] == 0
    code, out, _ = run("--merchant", "Acme", "--json")
    assert (code, json.loads(out)["invoices"]) == (1, 1)


def test_queries_do_not_grow_with_invoices(world: World, django_assert_max_num_queries: Callable[..., Any]) -> None:
    for number in range(12):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
    with django_assert_max_num_queries(24):
        assert verify().invoices == 12


@pytest.mark.django_db(transaction=True)
def test_a_snapshot_is_one_instant_and_read_only() -> None:
    with snapshot(), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("repeatable read",)
        cursor.execute("SHOW transaction_read_only")
        assert cursor.fetchone() == ("on",)
