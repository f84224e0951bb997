"""Choosing a token: one script call against a no-op and against lock, read, compute, write, release; PostgreSQL's.

redis-py, one connection, everything on this machine. The floor of `selection_N_vs_noop` is an EVALSHA of `return 1`
with the same keys and the same argument: what any script called with them costs. `selection_N_vs_bare_noop` compares
with an EVALSHA that has neither, `select_call_N` the whole function `tokens_select` as the application calls it; both
are there to be read and have no target. Histories: Visa, 15 tries in 30 days and one amount; every second token has
used up its limit.

    python benchmarks/tokens.py [--quick]
"""

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from _common import Result, at_most, in_turn, own_database, quick, report, unguard

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
OWNER = "txn_01kbxxxxxxxxxxxxxxxxxxxxxxxx"
TRIES = 15
TARGETS = {1: 1.2, 5: 1.35, 20: 1.6}


# --- Redis ------------------------------------------------------------------------------------------------------------


def history(tokens: int) -> Any:
    """A customer as `select.lua` reads it."""
    from tokens.budgets import AttemptMark
    from tokens.mirror.packing import History, PackedToken

    live, marks = [], {}
    for number in range(tokens):
        oldest = NOW - 30 * DAY + (timedelta(hours=number + 1) if number % 2 else -DAY)
        times = [oldest + place * 2 * DAY for place in range(TRIES)]
        marks[str(number)] = [AttemptMark(at, 4_990, "USD", True, "visa") for at in times]
        live.append(PackedToken(number + 1, "visa", str(number), None, NOW + 700 * DAY))
    return History(NOW - 40 * DAY, live, 0, marks, {})


def selections(server: Any, book: Any, *, rounds: int, times: int) -> list[Result]:
    from tokens.mirror.client import SELECT
    from tokens.mirror.packing import Question, pack_history, pack_question
    from tokens.mirror.selection import tokens_select
    from tokens.selectors import card_horizon

    noop, sha = server.script_load("return 1"), server.script_load(SELECT.text)
    keys = (book.keys.status, book.keys.budget)
    request = pack_question(Question(OWNER, NOW, 4_990, "USD", 1, 15), card_horizon())
    results: list[Result] = []
    more: list[Result] = []
    for tokens, target in TARGETS.items():
        server.set(book.keys.budget, pack_history(history(tokens), 1))
        select = lambda: server.evalsha(sha, 2, *keys, request)  # noqa: E731
        assert select()[:1] in (b"A", b"R")

        def whole() -> object:
            return tokens_select(
                customer=book.customer,
                owner=OWNER,
                invoice_pk=1,
                amount_minor=4_990,
                currency="USD",
                not_before=NOW,
            )

        ratio, value, floor = in_turn(
            lambda: server.evalsha(noop, 2, *keys, request), select, rounds=rounds, times=times
        )
        results.append(at_most(f"selection_{tokens}_vs_noop", value, "us", floor=floor, target=target, ratio=ratio))
        for metric, call in ((f"selection_{tokens}_vs_bare_noop", select), (f"select_call_{tokens}", whole)):
            ratio, value, floor = in_turn(lambda: server.evalsha(noop, 0), call, rounds=rounds, times=times)
            more.append(Result(metric, value, "us", floor, ratio, None, None))
    return [*results, against_locks(server, book, sha, keys, request, rounds=rounds, times=times), *more]


def against_locks(
    server: Any, book: Any, sha: str, keys: tuple[str, str], request: bytes, *, rounds: int, times: int
) -> Result:
    """Five tokens: one script against SET NX, HGETALL, counting in Python, HSET, and GET with DEL."""
    from tokens.mirror.packing import pack_history

    server.set(book.keys.budget, pack_history(history(5), 1))
    days = {(NOW - place * 2 * DAY).date().isoformat(): 1 for place in range(TRIES)}
    for number in range(5):
        document = {"token_id": f"tok_{number}", "error_code": "insufficient_funds", "retry_history": days}
        server.hset(book.keys.tokens, f"tok_{number}", json.dumps(document))
    lock, since = f"{book.keys.status}:flow", (NOW - 30 * DAY).date().isoformat()

    def flow() -> str | None:
        if not server.set(lock, OWNER, nx=True, ex=300):
            raise SystemExit("The lock was held by somebody else.")
        stored = {name: json.loads(text) for name, text in server.hgetall(book.keys.tokens).items()}
        used = {name: sum(n for day, n in one["retry_history"].items() if day > since) for name, one in stored.items()}
        chosen = min(used, key=lambda name: (used[name] >= 15, used[name], name))
        server.hset(book.keys.tokens, chosen, json.dumps(stored[chosen] | {"scheduled_at": NOW.isoformat()}))
        if server.get(lock) == OWNER.encode():
            server.delete(lock)
        return str(chosen)

    ratio, value, floor = in_turn(
        flow, lambda: server.evalsha(sha, 2, *keys, request), rounds=rounds, times=max(50, times // 3)
    )
    server.delete(book.keys.tokens)
    return at_most("selection_vs_lock_flow", value, "us", floor=floor, target=0.25, ratio=ratio)


def memory(server: Any, book: Any) -> Result:
    """All keys of a customer with two tokens of 15 tries, written as the application writes them."""
    from tokens.mirror import client
    from tokens.mirror.loading import customer_images

    (image,) = customer_images([book.pk], now=NOW)
    assert image is not None
    pairs = [part for pair in image.statuses.items() for part in pair]
    names = [image.keys.status, image.keys.tokens, image.keys.budget]
    assert client.call(client.WRITE, names, image.version, OWNER, 60_000, 60_000, image.budget, *pairs) == [1]
    total = sum(server.memory_usage(name) for name in names)
    server.delete(*names)
    return at_most("bytes_per_customer", total, "bytes", floor=2_048, target=1.0)


class Book:
    """The first customer of the filled tables, and its keys."""

    def __init__(self, pk: int) -> None:
        from invoices.models import Customer
        from tokens.mirror.keys import customer_keys

        self.pk = pk
        self.customer = Customer.objects.select_related("connection").get(pk=pk)
        self.keys = customer_keys(self.customer.connection.public_id, self.customer.connector_customer_id)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

# Customers first+1 .. last, each with one invoice, one charge, two cards and 15 declines of each in 30 days.
_FILL = """
INSERT INTO invoices_customer (id, merchant_id, connection_id, public_id, connector_customer_id, email, name, country,
    timezone, locale, first_seen_at)
SELECT n, %(merchant)s, %(connection)s, 'cus_' || n, 'cus_bench_' || n, '', '', '', '', '', %(now)s
FROM generate_series(%(first)s + 1, %(last)s) n;
INSERT INTO tokens_card (id, merchant_id, connection_id, public_id, fingerprint, budget_group, kind, network, last4,
    exp_month, exp_year, funding, country, stop_code, stop_revivable)
SELECT n, %(merchant)s, %(connection)s, 'crd_' || n, 'fp_' || n, gen_random_uuid(), 'card', 'visa', '4242', 12, 2030,
    'credit', 'US', '', true
FROM generate_series(2 * %(first)s + 1, 2 * %(last)s) n;
INSERT INTO tokens_token (id, merchant_id, connection_id, customer_id, card_id, public_id, provider_token, status,
    decline_code, is_default, added_by_payment_id, first_seen_at, gateway_customer_id, gateway_token)
SELECT n, %(merchant)s, %(connection)s, (n + 1) / 2, n, 'tok_01kbxxxxxxxxxxxxxx' || n, 'pm_' || n, 'live', '', false,
    'pi_3MtwBwLkdIwHu7ix28a3tqPa', %(now)s, '', ''
FROM generate_series(2 * %(first)s + 1, 2 * %(last)s) n;
INSERT INTO invoices_invoice (id, merchant_id, connection_id, customer_id, public_id, number, description, status,
    amount_minor, currency, paid_minor, refunded_minor, credited_minor, subscription_id, plan, interval,
    provider_attempt_count, collection_stopped, cancel_reason, issued_at, last_seq, last_hash)
SELECT n, %(merchant)s, %(connection)s, n, 'inv_' || n, '', '', 'PROCESSING', 4990, 'USD', 0, 0, 0, '', '', '', 0, '',
    '', %(now)s, 0, ''
FROM generate_series(%(first)s + 1, %(last)s) n;
INSERT INTO invoices_transaction (id, merchant_id, invoice_id, public_id, kind, status, amount_minor, currency, reason,
    failure, created_by, started_at)
SELECT n, %(merchant)s, n, 'txn_' || n, 'CHARGE', 'RETRYING', 4990, 'USD', '', '', 'bench', %(now)s
FROM generate_series(%(first)s + 1, %(last)s) n;
INSERT INTO invoices_attempt (merchant_id, connection_id, customer_id, invoice_id, transaction_id, card_id, token_id,
    public_id, kind, origin, trigger, number, status, amount_minor, currency, provider_id, provider_payment_id,
    raw_code, network_code, advice_code, message, category, explanation, counts, decision, attempted_at, resends,
    extended, collected)
SELECT %(merchant)s, %(connection)s, (card + 1) / 2, (card + 1) / 2, (card + 1) / 2, card, card,
    'att_' || card || '_' || try, 'CHARGE', 'PROVIDER', 'automatic', try, 'DECLINED', 4990, 'USD',
    'ch_' || card || '_' || try, '', 'insufficient_funds', '51', '', '', 'INSUFFICIENT_FUNDS', '', true, '{}',
    %(now)s - make_interval(hours => 48 * try - 12), 0, false, false
FROM generate_series(1, %(tries)s) try, generate_series(2 * %(first)s + 1, 2 * %(last)s) card;
"""


def fill(merchant: Any, connection: Any, first: int, last: int) -> None:
    """Rows by the million, past the triggers and foreign keys that would look at each of them."""
    from django.db import connection as database
    from django.db import transaction

    values = {
        "merchant": merchant.pk,
        "connection": connection.pk,
        "first": first,
        "last": last,
        "now": NOW,
        "tries": TRIES,
    }
    unguard()
    with database.cursor() as cursor:
        with transaction.atomic():
            for statement in _FILL.strip().split(";\n"):
                cursor.execute(statement.rstrip(";"), values)
        cursor.execute("VACUUM ANALYZE")


def decision_ms(customers: int, samples: int) -> float:
    """Median of step 2's question as a whole: customer, cards and invoice locked, every token counted."""
    from django.db import transaction

    from retries.locking import scope_lock
    from tokens.selectors import token_options

    def decide(pk: int) -> float:
        started = time.perf_counter()
        with transaction.atomic():
            scope = scope_lock(customer_pk=pk, invoice_pk=pk)
            options = token_options(
                customer=scope.customer,
                cards=scope.cards,
                invoice_pk=pk,
                amount_minor=4_990,
                currency="USD",
                not_before=NOW,
            )
            taken = time.perf_counter() - started
            transaction.set_rollback(True)  # nothing was decided, so nothing need be mirrored
        assert [option.remaining for option in options] == [0, 0]
        return taken

    picked = [1 + (number * 7_919) % customers for number in range(samples)]
    for pk in picked[: samples // 5]:
        decide(pk)
    return statistics.median(decide(pk) for pk in picked) * 1000


def decisions(fill_to: Callable[[int], None], small: int, large: int, samples: int) -> list[Result]:
    per_customer = 2 * TRIES
    fill_to(small // per_customer)
    floor = decision_ms(small // per_customer, samples)
    fill_to(large // per_customer)
    value = decision_ms(large // per_customer, samples)
    return [
        Result("pg_decision_ms_1m", value, "ms", floor, value / floor, 5.0, value <= 5.0),
        at_most("pg_decision_1m_vs_10k", value, "ms", floor=floor, target=1.5),
    ]


def main() -> None:
    small = quick(__doc__.splitlines()[0])
    with own_database("tokens"):
        from django.conf import settings

        from accounts.services import merchant_create
        from invoices.services.parties import connection_create
        from tokens.mirror.client import connection as redis_connection

        merchant = merchant_create(name="Benchmark").merchant
        account = connection_create(merchant=merchant, provider="simulator", config={})
        filled = 0

        def fill_to(customers: int) -> None:
            nonlocal filled
            fill(merchant, account, filled, customers)
            filled = customers

        counted = decisions(fill_to, 10_000, 100_000 if small else 1_000_000, 60 if small else 400)
        server, book = redis_connection(settings.REDIS_URL), Book(1)
        rounds, times = (7, 200) if small else (25, 1_000)
        try:
            results = selections(server, book, rounds=rounds, times=times)
            results.insert(4, memory(server, book))
        finally:
            server.delete(book.keys.status, book.keys.tokens, book.keys.budget)
    report("tokens", [*results[:5], *counted, *results[5:]])


if __name__ == "__main__":
    main()
