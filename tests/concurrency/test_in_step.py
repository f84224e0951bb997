"""Work for many rows in one transaction: fewer statements, the same rows, and nobody's row touched by two."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.test.utils import CaptureQueriesContext

from accounts.models import Merchant
from invoices.models import Customer, ReviewItem
from invoices.services.ledger import Stamp, invoice_lock, record_event
from invoices.services.parties import customer_lock
from recovery_site.common import in_step as module
from recovery_site.common.compiled import AnyOf, Compiled, Param, Question
from recovery_site.common.db import array, for_no_key_update
from recovery_site.common.in_step import Alone, Done, at_end, end_now, in_step, in_step_as_chosen
from recovery_site.common.rows import row_insert, row_save
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import Card
from tokens.services import cards_lock

pytestmark = pytest.mark.django_db(transaction=True)
NAMED = Compiled(lambda: Merchant.objects.filter(name=Param("name")).order_by("-pk"))
LOCKED = Compiled(lambda: for_no_key_update(Merchant.objects.filter(pk=Param("pk"))))


@contextmanager
def statements() -> Iterator[list[str]]:
    """What PostgreSQL is asked meanwhile, without what a transaction begins and ends with."""
    asked: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield asked
    around = ("BEGIN", "COMMIT", "ROLLBACK", "SET LOCAL")
    asked += [one["sql"] for one in captured.captured_queries if not one["sql"].startswith(around)]


def merchants(number: int) -> list[Merchant]:
    return [Merchant.objects.create(name=f"Shop {n}") for n in range(number)]


def renamed(merchant: Merchant, name: str) -> str:
    (locked,) = LOCKED.all(pk=merchant.pk)
    before = locked.name
    locked.name = name
    row_save(locked, "name")
    return before


def results(done: list[Done[Any] | None]) -> list[Any]:
    return [one.result if one else None for one in done]


def test_many_pieces_ask_as_often_as_one() -> None:
    rows = merchants(7)
    with statements() as asked:
        done = in_step([lambda row=row: renamed(row, f"New {row.pk}") for row in rows])  # type: ignore[misc]
    assert results(done) == [f"Shop {n}" for n in range(7)]
    assert [row.name for row in Merchant.objects.order_by("pk")] == [f"New {row.pk}" for row in rows]
    assert len(asked) == 2


def test_pieces_that_part_ways_still_ask_together_what_is_alike() -> None:
    rows = merchants(4)

    def work(number: int) -> int:
        (locked,) = LOCKED.all(pk=rows[number].pk)
        if number % 2:
            locked.timezone = "Europe/Rome"
            row_save(locked, "timezone")
        locked.charging_enabled = False
        row_save(locked, "charging_enabled")
        return len(NAMED.all(name=locked.name))

    with statements() as asked:
        done = in_step([lambda n=n: work(n) for n in range(4)])  # type: ignore[misc]
    assert Merchant.objects.filter(charging_enabled=False).count() == 4
    assert results(done) == [1] * 4
    assert len(asked) == 1 + 2 + 2 + 1  # the locks; two of one kind beside two of the other, twice; the last two


@pytest.mark.parametrize("unless_there", [False, True])
def test_rows_are_inserted_together_and_know_their_keys(unless_there: bool) -> None:
    rows = [Merchant(name=f"Nice \"{n}\" \\ 'x' {{}}, é") for n in range(5)]
    with statements() as asked:
        done = in_step([lambda row=row: row_insert(row, unless_there=unless_there) for row in rows])  # type: ignore[misc]
    assert results(done) == [True] * 5
    assert len(asked) == 1
    for row in rows:
        assert Merchant.objects.get(pk=row.pk).name == row.name
        assert not row._state.adding


def test_a_row_that_is_there_already_is_told_to_the_right_piece(shop: Shop) -> None:
    bill = shop.failed_bill()
    known = shop.customer(bill)
    names = ["new 1", known.connector_customer_id, "new 2"]
    rows = [
        Customer(
            merchant_id=known.merchant_id,
            connection_id=known.connection_id,
            connector_customer_id=name,
            first_seen_at=shop.at,
        )
        for name in names
    ]
    done = in_step([lambda row=row: row_insert(row, unless_there=True) for row in rows])  # type: ignore[misc]
    assert results(done) == [True, False, True]
    assert rows[1].pk is None
    assert {Customer.objects.get(pk=rows[n].pk).connector_customer_id for n in (0, 2)} == {"new 1", "new 2"}


def test_events_of_many_invoices_keep_their_chains(shop: Shop) -> None:
    bills = [shop.failed_bill() for _ in range(3)]

    def note(bill: Bill) -> int:
        customer_lock(shop.customer(bill).pk)
        invoice = invoice_lock(shop.invoice(bill).pk)
        stamp = Stamp(actor="test", cause="", now=shop.at)
        before = invoice.last_seq
        record_event(invoice=invoice, kind="alert.first", stamp=stamp, data={"text": f"{bill.invoice}"})
        record_event(invoice=invoice, kind="alert.second", stamp=stamp, data={"text": "x"})
        return invoice.last_seq - before

    assert results(in_step([lambda bill=bill: note(bill) for bill in bills])) == [2, 2, 2]  # type: ignore[misc]
    for bill in bills:
        assert shop.alerts(bill)[-2:] == ["first", "second"]
        last = shop.invoice(bill).events.order_by("seq").last()
        assert last is not None
        assert (last.seq, last.hash) == (shop.invoice(bill).last_seq, shop.invoice(bill).last_hash)


def test_values_of_every_kind_find_what_they_find_alone(shop: Shop) -> None:
    """Lists of various lengths, texts with quotes, nothing at all."""
    for n, subject in enumerate(['a"b', "a\\b", "a,{b}", ""]):
        ReviewItem.objects.create(
            merchant=shop.merchant, subject_type="x", subject_id=subject, kind="no_plan" if n % 2 else "fraud",
            opened_at=shop.at,
        )  # fmt: skip
    open_items = Compiled(
        lambda: (
            ReviewItem.objects.filter(AnyOf("kind", Param("kinds")), AnyOf("subject_id", Param("ids")))
            .filter(Q(opened_at__lte=Param("at")))
            .order_by("-pk")
        )
    )
    asked: list[dict[str, Any]] = [
        {"kinds": ["fraud"], "ids": ['a"b', "a,{b}", "nobody"], "at": shop.at},
        {"kinds": ["fraud", "no_plan"], "ids": ["a\\b", ""], "at": shop.at},
        {"kinds": [], "ids": [""], "at": shop.at},
        {"kinds": ["no_plan"], "ids": [""], "at": None},
    ]
    alone = [open_items.all(**values) for values in asked]
    assert [len(found) for found in alone] == [2, 2, 0, 0]
    with statements() as sent:
        done = in_step([lambda values=values: open_items.all(**values) for values in asked])  # type: ignore[misc]
    assert results(done) == alone
    assert len(sent) == 1


def test_question_with_named_places_asks_the_same_in_step() -> None:
    question = Question("SELECT %(a)s + %(b)s, %(a)s %% 2")
    done = in_step([lambda n=n: question.rows({"a": n, "b": 10}) for n in range(3)])  # type: ignore[misc]
    assert results(done) == [[(10, 0)], [(11, 1)], [(12, 0)]]


# --- whose row it is --------------------------------------------------------------------------------------------------


def test_a_row_that_another_piece_has_locked_sends_the_second_away() -> None:
    first, second = merchants(2)
    works: list[Callable[[], str]] = [
        lambda: renamed(first, "One"), lambda: renamed(first, "Two"), lambda: renamed(second, "Three"),
    ]  # fmt: skip
    assert results(in_step(works)) == ["Shop 0", None, "Shop 1"]
    assert sorted(Merchant.objects.values_list("name", flat=True)) == ["One", "Three"]


def test_without_that_both_would_write_from_what_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Steps, "own", lambda self, piece, rows: None)
    (only,) = merchants(1)

    def longer(by: str, *fields: str) -> None:
        (locked,) = LOCKED.all(pk=only.pk)
        locked.name += by
        row_save(locked, *fields)

    in_step([lambda: longer("a", "name"), lambda: longer("b", "name", "timezone")])
    assert len(Merchant.objects.get().name) == len("Shop 0") + 1  # one of the two is lost


def test_cards_that_two_customers_share_are_one_pieces_only(shop: Shop) -> None:
    bills = [shop.failed_bill() for _ in range(3)]
    cards = [Card.objects.get(tokens__customer=shop.customer(bill)) for bill in bills]
    Card.objects.filter(pk=cards[2].pk).update(budget_group=cards[0].budget_group)
    pks = [shop.customer(bill).pk for bill in bills]

    def lock(pk: int) -> set[int]:
        return {card.pk for card in cards_lock(customer_lock(pk))}

    together = {cards[0].pk, cards[2].pk}
    done = in_step([lambda pk=pk: lock(pk) for pk in pks])  # type: ignore[misc]
    assert results(done) == [together, {cards[1].pk}, None]
    with transaction.atomic():
        assert lock(pks[2]) == together


def test_an_inserted_row_belongs_to_who_inserted_it() -> None:
    row = Merchant(name="Mine")

    def insert() -> None:
        row_insert(row)
        NAMED.all(name="a step for the other one to catch up")

    def take() -> str:
        NAMED.all(name="one")
        return renamed(row, "Yours")

    done = in_step([insert, take])
    assert [one is not None for one in done] == [True, False]
    assert Merchant.objects.get().name == "Mine"


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_piece_that_raises_before_it_wrote_leaves_the_others_alone() -> None:
    first, second = merchants(2)

    def raises() -> str:
        LOCKED.all(pk=first.pk)
        raise RuntimeError("no")

    assert results(in_step([raises, lambda: renamed(second, "New")])) == [None, "Shop 1"]
    assert Merchant.objects.get(pk=second.pk).name == "New"


@pytest.mark.parametrize("how", ["together", "by itself"])
def test_piece_that_raises_after_it_wrote_takes_everything_back(how: str) -> None:
    first, second = merchants(2)

    def raises() -> str:
        if how == "together":
            renamed(first, "Half")
        else:
            Merchant.objects.filter(pk=first.pk).update(name="Half")
        raise RuntimeError("no")

    assert results(in_step([raises, lambda: renamed(second, "New")])) == [None, None]
    assert sorted(Merchant.objects.values_list("name", flat=True)) == ["Shop 0", "Shop 1"]


def test_statement_that_postgresql_refuses_takes_everything_back(shop: Shop) -> None:
    bills = [shop.failed_bill() for _ in range(2)]

    def pays(bill: Bill, paid: int) -> None:
        customer_lock(shop.customer(bill).pk)
        invoice = invoice_lock(shop.invoice(bill).pk)
        invoice.paid_minor = paid
        row_save(invoice, "paid_minor")

    before = [shop.invoice(bill).paid_minor for bill in bills]
    assert results(in_step([lambda: pays(bills[0], 1), lambda: pays(bills[1], 2**80)])) == [None, None]
    assert [shop.invoice(bill).paid_minor for bill in bills] == before


def test_row_that_is_gone_is_not_passed_over() -> None:
    first, second = merchants(2)
    Merchant.objects.filter(pk=second.pk).delete()

    def save(row: Merchant) -> None:
        row.name = "New"
        row_save(row, "name")

    assert results(in_step([lambda: save(first), lambda: save(second)])) == [None, None]
    assert Merchant.objects.get().name == "Shop 0"


def test_text_that_is_too_long_is_refused_and_not_cut() -> None:
    first, second = merchants(2)
    assert results(in_step([lambda: renamed(first, "x" * 5000), lambda: renamed(second, "New")])) == [None, None]
    assert sorted(Merchant.objects.values_list("name", flat=True)) == ["Shop 0", "Shop 1"]


def test_savepoint_of_a_piece_is_never_left_half_done() -> None:
    """Others would write into it, and lose that when it is taken back."""
    first, second = merchants(2)

    def tries(row: Merchant) -> str:
        NAMED.all(name="both begin here")
        try:
            with transaction.atomic():
                renamed(row, "Taken back")
                Merchant.objects.create(pk=row.pk, name="again")
        except IntegrityError:
            return "refused"
        return "done"

    def writes() -> str:
        NAMED.all(name="both begin here")
        return renamed(second, "Kept")

    assert results(in_step([lambda: tries(first), writes])) == ["refused", "Shop 1"]
    assert Merchant.objects.get(pk=first.pk).name == "Shop 0"


def test_what_follows_the_commit_happens_once_for_each(shop: Shop) -> None:
    told: list[int] = []
    rows = merchants(3)

    def work(row: Merchant) -> None:
        renamed(row, f"New {row.pk}")
        transaction.on_commit(lambda: told.append(row.pk))

    in_step([lambda row=row: work(row) for row in rows])  # type: ignore[misc]
    assert sorted(told) == sorted(row.pk for row in rows)


def test_within_another_transaction_it_goes_by_savepoints() -> None:
    first, second = merchants(2)

    def raises() -> str:
        renamed(first, "Half")
        raise RuntimeError("no")

    with transaction.atomic():
        assert results(in_step([raises, lambda: renamed(second, "New")])) == [None, None]
        assert results(in_step([lambda: renamed(first, "One"), lambda: renamed(second, "Two")])) == ["Shop 0", "Shop 1"]
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            assert cursor.fetchone() == ("0",), "the patience of the others is theirs"
    assert sorted(Merchant.objects.values_list("name", flat=True)) == ["One", "Two"]
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        in_step([lambda: renamed(first, "Three")], durable=True)


def test_what_is_put_off_is_written_once_for_all_at_the_end(shop: Shop) -> None:
    known = [shop.customer(shop.failed_bill()) for _ in range(3)]
    written = list[str]()

    def piece(customer: Customer) -> None:
        for name in ("One", "Two"):
            customer.name = f"{name} {customer.pk}"
            assert at_end(("name", customer.pk), partial(row_save, customer, "name"))
            customer_lock(customer.pk)
        written.append(Customer.objects.get(pk=customer.pk).name)

    with statements() as asked:
        in_step([partial(piece, customer) for customer in known])
    assert not [name for name in written if name.startswith(("One", "Two"))], "nothing was written before the end"
    assert [Customer.objects.get(pk=one.pk).name for one in known] == [f"Two {one.pk}" for one in known]
    assert sum(text.startswith("UPDATE") for text in asked) == 1


def test_what_is_put_off_goes_with_what_it_belongs_to(shop: Shop) -> None:
    first, second, third = (shop.customer(shop.failed_bill()) for _ in range(3))

    def leaves(customer: Customer) -> None:
        at_end("name", partial(row_save, customer, "name"))
        raise Alone("for a reason")

    def fails(customer: Customer) -> None:
        at_end("name", partial(row_save, Customer(pk=-1), "name"))

    first.name = second.name = third.name = "changed"
    done = in_step([partial(leaves, first), partial(at_end, "name", partial(row_save, second, "name"))])
    assert [one is not None for one in done] == [False, True]
    assert in_step([partial(fails, first), partial(at_end, "name", partial(row_save, third, "name"))]) == [
        None,
        None,
    ]
    names = [Customer.objects.get(pk=one.pk).name for one in (first, second, third)]
    assert [name == "changed" for name in names] == [False, True, False]


def test_what_cannot_be_done_at_the_end_takes_all_back(shop: Shop) -> None:
    first, second = (shop.customer(shop.failed_bill()) for _ in range(2))
    first.name = second.name = "changed"

    def piece(customer: Customer, work: Callable[[], None]) -> None:
        row_save(customer, "name")
        at_end("end", work)

    def broken() -> None:
        raise ValueError("before it asked anything")

    assert in_step([partial(piece, first, broken), partial(piece, second, lambda: None)]) == [None, None]
    assert not Customer.objects.filter(name="changed").exists()


def test_outside_of_any_piece_nothing_is_put_off() -> None:
    assert not at_end("name", lambda: pytest.fail("it was put off"))
    end_now("name")


def test_who_comes_into_a_savepoint_with_something_put_off_is_done_alone(shop: Shop) -> None:
    customer = shop.customer(shop.failed_bill())

    def piece(read: bool) -> None:
        at_end("name", partial(row_save, customer, "name"))
        with transaction.atomic():
            assert not at_end("other", lambda: None), "what is written in a savepoint is written there"
            if read:
                end_now("name")
            else:
                at_end("name", lambda: None)

    for read in (True, False):
        assert in_step([partial(piece, read)]) == [None]


def test_an_invoice_that_is_locked_again_goes_on_where_its_chain_ends(shop: Shop) -> None:
    bills = [shop.failed_bill() for _ in range(3)]
    stamp = Stamp(actor="test", cause="", now=shop.at)

    def twice(bill: Bill) -> None:
        customer_lock(shop.customer(bill).pk)
        for name in ("first", "second"):
            invoice = invoice_lock(shop.invoice(bill).pk)
            record_event(invoice=invoice, kind=f"alert.{name}", stamp=stamp, data={"text": name})

    assert results(in_step([partial(twice, bill) for bill in bills])) == [None, None, None]
    for bill in bills:
        assert shop.alerts(bill)[-2:] == ["first", "second"]
        last = shop.invoice(bill).events.order_by("seq").last()
        assert last is not None
        assert (last.seq, last.hash) == (shop.invoice(bill).last_seq, shop.invoice(bill).last_hash)


def test_what_all_ask_alike_is_answered_once() -> None:
    """Most of what a merchant or a connection decides is the same for all of them."""
    merchant, number = merchants(2)[0], Compiled(lambda: Merchant.objects.filter(pk=Param("pk")))
    with statements() as asked:
        found = results(in_step([lambda: number.all(pk=merchant.pk)[0]] * 5))
    assert found == [merchant] * 5
    assert len({id(one) for one in found}) == 5, "each has an instance of its own"
    assert [sql for sql in asked if "accounts_merchant" in sql and "unnest" in sql] == []


def test_python_collects_its_garbage_again_afterwards() -> None:
    collects = list[bool]()
    in_step([lambda: collects.append(gc.isenabled())])
    assert (collects, gc.isenabled()) == ([False], True)
    with pytest.raises(RuntimeError):
        in_step_as_chosen(_refused)
    assert gc.isenabled()


def _refused() -> list[Callable[[], None]]:
    raise RuntimeError


def test_nothing_to_do_asks_nothing() -> None:
    with statements() as asked:
        assert in_step([]) == []
    assert asked == []


def test_locks_are_taken_in_one_order(shop: Shop) -> None:
    """Two drains that meet the same customers from two ends would wait for each other."""
    bills = [shop.failed_bill() for _ in range(4)]
    pks = sorted(shop.invoice(bill).pk for bill in bills)
    asked = list[Any]()

    def watch(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append(params)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        in_step([lambda pk=pk: invoice_lock(pk) for pk in reversed(pks)])  # type: ignore[misc]
    assert asked[1:] == [[array(pks)]]
