"""`tokens budget|when|rebuild|import|export|limit|link|unlock`: what people do with cards, tokens and slots.

budget CARD_OR_TOKEN [--amount MINOR --currency CODE] [--at T]   which rule applies now, what is left, and why
when CUSTOMER --amount MINOR --currency CODE [--at T]            which token could be charged, and from when
rebuild [--merchant NAME]                                        write Redis again from PostgreSQL
import FILE --connection ID [--source NAME] [--hourly] [--at T]  take in token history
export --connection ID [--output FILE] [--days N] [--at T]       write token history
limit --merchant NAME [NETWORK RULE NUMBER|none]                 a merchant's own stricter limits
link CARD CARD --reason TEXT                                     count two cards together: they are one account
unlock CUSTOMER --reason TEXT [--connection ID]                  free a slot by hand, audited
"""

import csv
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from tqdm import tqdm

from accounts.services import merchant_require
from invoices.models import Connection, Customer
from invoices.services.ledger import Stamp
from recovery_site.common.commands import RecoveryCommand
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from recovery_site.common.money import amount_minor, currency_code
from tokens.card_budgets import card_budget, card_find
from tokens.mirror import mirror_rebuild, slot_keeper, tokens_select
from tokens.models import Token
from tokens.selectors import merchant_limits
from tokens.services import cards_link, retry_limit_set
from tokens.transfer import history_export, history_import

_ACTOR = "command:tokens"


class Command(RecoveryCommand):
    help = "Budgets of cards, token history, a merchant's own limits, the mirror in Redis and customers' slots."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)

        def action(name: str, text: str) -> ArgumentParser:
            made: ArgumentParser = actions.add_parser(name, help=text, description=text)
            super(Command, self).add_arguments(made)
            return made

        one = action("budget", "Which rule applies to a card now, what is left, and why.")
        one.add_argument("card", metavar="CARD_OR_TOKEN", help="our id, the provider's token or the fingerprint")
        one.add_argument("--amount", type=int, help="minor units: only this amount (with --currency)")
        one.add_argument("--currency", default="")
        self.add_at(one)
        one = action("when", "Which of a customer's tokens could be charged for an amount, and from when.")
        one.add_argument("customer", metavar="CUSTOMER", help="our id (cus_...) or the provider's")
        one.add_argument("--amount", type=int, required=True, help="minor units")
        one.add_argument("--currency", required=True)
        one.add_argument("--connection", metavar="ID", help="where several connections know the provider's id")
        self.add_at(one)
        one = action("rebuild", "Write the keys of every customer in Redis again from PostgreSQL.")
        one.add_argument("--merchant", help="only this merchant's customers")
        one = action("import", "Take in token history from a CSV file; bad lines are reported and change nothing.")
        one.add_argument("file", help="a CSV file, or - for standard input")
        one.add_argument("--connection", required=True, metavar="ID")
        one.add_argument("--source", default="csv", help="where it comes from; history is kept once per source")
        one.add_argument("--hourly", action="store_true", help="full hours stand for any time in that hour")
        self.add_at(one)
        one = action("export", "Write token history as CSV.")
        one.add_argument("--connection", required=True, metavar="ID")
        one.add_argument("--output", default="-", help="a file (default: standard output)")
        one.add_argument("--days", type=int, default=180, help="how far back declines are listed (default: 180)")
        self.add_at(one)
        one = action("limit", "Show or set a merchant's own limits; they can only be stricter than the network's.")
        one.add_argument("--merchant", required=True, metavar="NAME")
        one.add_argument("network", nargs="?", help="visa, mastercard ... or * for all")
        one.add_argument("rule", nargs="?", help="max_retries_per_day or max_retry_count_for_thirty_day")
        one.add_argument("number", nargs="?", help="the limit, or none to lift it")
        self.add_at(one)
        one = action("link", "Count two cards together: one account that two connections name differently.")
        one.add_argument("card", metavar="CARD")
        one.add_argument("other", metavar="CARD")
        one.add_argument("--reason", required=True)
        self.add_at(one)
        one = action("unlock", "Take the slot of a customer from its holder. Nothing should ever need it.")
        one.add_argument("customer", metavar="CUSTOMER", help="our id (cus_...) or the provider's")
        one.add_argument("--reason", required=True)
        one.add_argument("--connection", metavar="ID", help="where several connections know the provider's id")
        self.add_at(one)

    def run(self, **options: Any) -> Mapping[str, Any] | None:
        actions = {
            "budget": self._budget,
            "when": self._when,
            "rebuild": self._rebuild,
            "import": self._import,
            "export": self._export,
            "limit": self._limit,
            "link": self._link,
            "unlock": self._unlock,
        }
        return actions[options["action"]](options)

    def _budget(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        amount, currency = options["amount"], options["currency"]
        if (amount is None) != (not currency):
            raise InvalidInput("Give --amount and --currency together: an amount means nothing without its currency.")
        if amount is not None:
            amount, currency = amount_minor(amount), currency_code(currency)
        found = card_budget(card_find(options["card"]), self.now(options), amount_minor=amount, currency=currency)
        return found.as_dict()

    def _when(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        customer = _customer(options["customer"], options["connection"])
        found = tokens_select(
            customer=customer,
            owner="",
            invoice_pk=0,
            amount_minor=amount_minor(options["amount"]),
            currency=currency_code(options["currency"]),
            not_before=self.now(options),
        )
        names = dict(Token.objects.filter(customer=customer).values_list("pk", "public_id"))
        return {
            "customer": customer.public_id,
            "answer": found.answer.value,
            "text": found.text,
            "locked_by": found.locked_by,
            "tokens": [
                {"token": names.get(one.pk, ""), "allowed_at": one.allowed_at.isoformat()} for one in found.tokens
            ],
            "from_redis": found.warm,
        }

    def human(self, result: Mapping[str, Any]) -> str:
        """A budget as people read it; everything else as it is."""
        if "rules" not in result:
            return super().human(result)
        lines = [f"{result['label']} ({result['card']}): {result['why']}"]
        lines.append(f"From {result['allowed_at']} on; {_left(result['remaining'])} left at {result['at']}.")
        for rule in result["rules"]:
            about = f" for {rule['subject']}" if rule["subject"] else ""
            until = f", next released {rule['releases_at']}" if rule["releases_at"] else ""
            lines.append(f"  {rule['name']}{about}: {rule['used']} of {rule['limit']} per {rule['window']}{until}")
            lines.append(f"    {rule['source']}")
        lines += [
            f"  {token['token']} of {token['customer']}: {token['obstacle'] or token['status']}"
            for token in result["tokens"]
        ]
        if result["shares_budget_with"]:
            lines.append(f"  Counted together with {', '.join(result['shares_budget_with'])}.")
        return "\n".join(lines)

    def _rebuild(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        merchant = merchant_require(options["merchant"]) if options["merchant"] else None
        with tqdm(unit=" customers", disable=None, file=sys.stderr) as bar:
            done = mirror_rebuild(merchant_pk=merchant.pk if merchant else None, progress=bar.update)
        return {"customers": done.customers, "written": done.written}

    def _import(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        connection = _connection(options["connection"])
        if not 1 <= len(options["source"]) <= 60:
            raise InvalidInput("--source must have 1 to 60 characters.")
        with tqdm(unit=" lines", disable=None, file=sys.stderr) as bar:
            report = history_import(
                connection=connection,
                lines=_lines(options["file"]),
                source=options["source"],
                now=self.now(options),
                hourly=options["hourly"],
                progress=bar.update,
            )
        return report.as_dict()

    def _export(self, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if options["days"] < 1:
            raise InvalidInput("--days must be at least 1.")
        to_stdout = options["output"] == "-"
        if to_stdout and options["json"]:
            raise InvalidInput("--json and the CSV cannot share standard output; name a file with --output.")
        since = self.now(options) - timedelta(days=options["days"])
        rows = history_export(connection=_connection(options["connection"]), since=since)
        if to_stdout:
            _write(rows, self.stdout)
            return None
        try:
            with Path(options["output"]).open("w", encoding="utf-8", newline="") as stream:
                number = _write(rows, stream)
        except OSError as error:
            raise CommandError(f"{options['output']} cannot be written: {error.strerror}.") from error
        return {"tokens": number, "file": options["output"]}

    def _limit(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        merchant = merchant_require(options["merchant"])
        if options["network"]:
            number = options["number"]
            if number is None or not (number == "none" or number.isdecimal()):
                raise InvalidInput("Write: tokens limit --merchant NAME NETWORK RULE NUMBER (or none to lift it).")
            retry_limit_set(
                merchant=merchant,
                network=options["network"],
                name=options["rule"],
                limit=None if number == "none" else int(number),
                actor=_ACTOR,
                now=self.now(options),
            )
        limits = merchant_limits(merchant.pk)
        return {"limits": [{"network": one.network, "rule": one.name, "limit": one.limit} for one in limits]}

    def _link(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        card, other = card_find(options["card"]), card_find(options["other"])
        cards_link(card=card, other=other, actor=_ACTOR, reason=options["reason"])
        return card_budget(card_find(card.public_id), self.now(options)).as_dict()

    def _unlock(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        customer = _customer(options["customer"], options["connection"])
        stamp = Stamp(actor=_ACTOR, cause="tokens unlock", now=self.now(options))
        return {"customer": customer.public_id, "result": slot_keeper().unlock(customer.pk, options["reason"], stamp)}


def _left(remaining: int | None) -> str:
    return "no rule, nothing to be" if remaining is None else f"{remaining} {'try' if remaining == 1 else 'tries'}"


def _connection(public_id: str) -> Connection:
    connection = Connection.objects.filter(public_id=public_id).first()
    if connection is None:
        raise NotFound(f"There is no connection {public_id!r}; `connection list --merchant NAME` lists them.")
    return connection


def _customer(reference: str, connection: str | None) -> Customer:
    reference = reference.replace("\x00", "")
    customers = Customer.objects.filter(public_id=reference) | Customer.objects.filter(connector_customer_id=reference)
    if connection:
        customers = customers.filter(connection__public_id=connection)
    found = list(customers.select_related("connection").order_by("pk")[:20])
    if not found:
        raise NotFound(f"There is no customer {reference!r}; give our id (cus_...) or the provider's.")
    if len(found) > 1:
        names = ", ".join(f"{one.public_id} ({one.connection.name})" for one in found)
        raise Conflict(f"{reference!r} is known at several connections; give one of these ids: {names}.")
    return found[0]


def _lines(name: str) -> Iterable[str]:
    """The file's lines, read as they are needed; a byte order mark is no part of them."""
    try:
        if name == "-":
            yield from sys.stdin
        else:
            with Path(name).open(encoding="utf-8-sig", newline="") as stream:
                yield from stream
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8 ({error.reason}); save it as UTF-8 and run this again.") from error


def _write(rows: Iterable[list[str]], stream: Any) -> int:
    """How many tokens were written, the header not counted."""
    writer = csv.writer(stream)
    number = -1
    for number, row in enumerate(rows):  # noqa: B007  (the last number is what is asked for)
        writer.writerow(row)
    return number
