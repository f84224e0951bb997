"""Compiled querysets say what the querysets say, with the values of each run."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Value
from django.db.transaction import TransactionManagementError
from psycopg.types.json import Jsonb

from accounts.models import Merchant
from invoices.models import Attempt
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.db import array, for_no_key_update, prepared_cursor
from recovery_site.common.rows import row_save
from tests.console.world import NOW, World
from tokens.models import Card, Token

pytestmark = pytest.mark.django_db(transaction=True)


def _tokens() -> Compiled[Token]:
    return Compiled(
        lambda: (
            Token.objects.filter(merchant=Param("merchant"), first_seen_at__lte=Param("now"))
            .select_related("card")
            .annotate(asked=Value(7))
            .order_by("pk")
        )
    )


def test_rows_relations_and_annotations_are_those_of_the_queryset() -> None:
    first, second = World(at=NOW), World(name="Other", at=NOW)
    first.fail()
    second.fail()
    tokens = _tokens()
    for world in (first, second, first):
        with connection.execute_wrapper(_count := Counted()):
            found = tokens.all(merchant=world.merchant.pk, now=NOW)
            cards = [(token.pk, token.card.merchant_id, token.asked) for token in found]  # type: ignore[attr-defined]
        assert _count.statements == 1, "the cards came with their tokens"
        assert cards == [(pk, world.merchant.pk, 7) for pk in _keys(world.merchant)]
    assert tokens.first(merchant=0, now=NOW) is None
    with pytest.raises(KeyError):
        tokens.all(merchant=first.merchant.pk)


class Counted:
    """Counts the statements that pass."""

    def __init__(self) -> None:
        self.statements = 0

    def __call__(self, execute: Callable[..., object], *given: object) -> object:
        self.statements += 1
        return execute(*given)


def _keys(merchant: Merchant) -> list[int]:
    return list(Token.objects.filter(merchant=merchant).order_by("pk").values_list("pk", flat=True))


def test_lists_of_any_length_and_values_that_look_like_sql() -> None:
    world = World(at=NOW)
    world.fail()
    named = Compiled(lambda: Card.objects.filter(AnyOf("fingerprint", Param("names"))).values_list("pk", flat=True))
    known = list(Card.objects.filter(merchant=world.merchant).values_list("pk", "fingerprint"))
    assert named.all(names=[]) == []
    assert sorted(named.all(names=[name for _, name in known])) == sorted(pk for pk, _ in known)
    assert named.all(names=["') OR true --", "%s", "{}", "a,b"]) == []


def test_a_row_lock_outside_of_a_transaction_is_refused_at_every_run() -> None:
    locked = Compiled(lambda: for_no_key_update(Card.objects.filter(pk=Param("pk"))))
    with transaction.atomic():
        assert locked.all(pk=0) == []
    with pytest.raises(TransactionManagementError):
        locked.all(pk=0)


def test_each_thread_uses_its_own_connection() -> None:
    own = Compiled(lambda: Merchant.objects.filter(name=Param("name")))
    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(len(own.all(name="unseen")))
        finally:
            connection.close()

    with transaction.atomic():
        Merchant.objects.create(name="unseen")
        assert len(own.all(name="unseen")) == 1
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert answers == [0], "the other thread looked through this one's open transaction"


_TEXTS = ["", "NULL", "null", "a,b", '"', "\\", '\\"', "{}", "{1,2}", " x ", "\n\t", "ü€😀", "%s", "');--"]
_AT = datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", [*_TEXTS, None]),
        ("bigint", [0, -1, 2**63 - 1, None]),
        ("boolean", [True, False, None]),
        ("timestamptz", [_AT, _AT.astimezone(ZoneInfo("Asia/Kathmandu")), _AT.replace(year=1, month=1), None]),
        ("date", [date(1, 1, 1), date(9999, 12, 31), None]),
        ("uuid", [UUID(int=7), None]),
        ("numeric", [Decimal("1E+3"), Decimal("-0.10"), None]),
        ("double precision", [0.1, -1e300, None]),
    ],
)
def test_a_list_arrives_as_it_was_sent(kind: str, values: list[Any]) -> None:
    with prepared_cursor() as cursor:
        cursor.execute(f"SELECT unnest(%s::{kind}[])", [array(values)])
        assert [value for (value,) in cursor.fetchall()] == values


def test_a_list_of_documents_and_of_lists_arrives_too() -> None:
    documents = [{"text": text, "more": [1, None, {"x": text}]} for text in _TEXTS]
    with prepared_cursor() as cursor:
        cursor.execute("SELECT unnest(%s::jsonb[])", [array(Jsonb(one) for one in documents)])
        assert [json.loads(value) for (value,) in cursor.fetchall()] == documents
        cursor.execute("SELECT unnest(%s::text[])::text[]", [array([_TEXTS, []])])
        assert [value for (value,) in cursor.fetchall()] == [_TEXTS, []]
    with pytest.raises(TypeError, match="No list of PostgreSQL is written of object"):
        array([object()])


def test_times_are_read_as_django_reads_them() -> None:
    for text in ("2026-03-29 01:59:59.999999+00", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59+00"):
        with prepared_cursor() as ours, connection.cursor() as theirs:
            ours.execute("SELECT %s::timestamptz", [text])
            theirs.execute("SELECT %s::timestamptz", [text])
            (mine,), (told,) = ours.fetchone(), theirs.fetchone()
        assert (mine, mine.tzinfo) == (told, told.tzinfo)


def test_of_a_related_row_that_is_not_there_nothing_is_made_and_what_was_left_out_is_read_when_asked_for() -> None:
    world = World(at=NOW)
    world.fail()
    attempts = Compiled(
        lambda: (
            Attempt.objects.filter(merchant=Param("merchant"))
            .select_related("card", "invoice__customer")
            .defer("message", "invoice__customer__email")
        )
    )
    with connection.execute_wrapper(_count := Counted()):
        (attempt,) = attempts.all(merchant=world.merchant.pk)
        told = attempt.invoice.customer.pk, attempt.card and attempt.card.pk
    assert _count.statements == 1
    kept = Attempt.objects.get()
    assert told == (kept.customer_id, kept.card_id)
    assert attempt.get_deferred_fields() == {"message"}
    assert (attempt.message, attempt.invoice.customer.email) == (kept.message, kept.customer.email)
    attempt.message = "changed"  # an instance like any other: it can be saved
    attempt.save()
    Attempt.objects.update(card=None)
    (attempt,) = attempts.all(merchant=world.merchant.pk)
    with connection.execute_wrapper(_count := Counted()):
        assert attempt.card is None
    assert _count.statements == 0


def test_what_a_compiled_queryset_cannot_give_is_refused() -> None:
    for queryset in (Merchant.objects.values("pk"), Merchant.objects.values_list("pk", named=True)):
        with pytest.raises(TypeError, match="gives instances, tuples or single values"):
            Compiled(lambda queryset=queryset: queryset).all()  # type: ignore[misc]


def _kept_plans() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def test_postgresql_keeps_the_plan_of_what_runs_often_unless_the_setting_says_no(settings: Any) -> None:
    often = Compiled(lambda: Merchant.objects.filter(name=Param("name"), pk__gt=-77))
    for kept, allowed in ((0, False), (1, True)):
        connection.close()
        settings.PREPARED_STATEMENTS = allowed
        for number in range(5):
            often.all(name=str(number))
        assert sum("accounts_merchant" in plan for plan in _kept_plans()) == kept


def test_row_save_writes_the_named_fields_alone_and_notices_a_row_that_is_gone() -> None:
    merchant = Merchant.objects.create(name="before")
    merchant.name, merchant.timezone = "after", "Asia/Tokyo"
    row_save(merchant, "name")
    assert (Merchant.objects.get().name, Merchant.objects.get().timezone) == ("after", "UTC")
    Merchant.objects.all().delete()
    with pytest.raises(DatabaseError, match=r"1 of 1 accounts\.Merchant are gone"):
        row_save(merchant, "name")
