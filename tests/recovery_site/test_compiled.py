"""Compiled querysets say what the querysets say, with the values of each run."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Value
from django.db.transaction import TransactionManagementError

from accounts.models import Merchant
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.db import for_no_key_update
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
