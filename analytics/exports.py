"""CSV for spreadsheets: streamed, UTC times, amounts as decimals, and nothing that a spreadsheet would run."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from analytics.selectors.invoices import InvoiceRow
from recovery_site.common.money import to_decimal

INVOICE_COLUMNS = (
    "invoice",
    "number",
    "provider_invoice_id",
    "customer",
    "status",
    "currency",
    "amount",
    "paid",
    "refunded",
    "credited",
    "due",
    "issued_at",
    "settled_at",
    "case",
    "case_status",
    "case_opened_at",
    "case_closed_at",
    "category",
    "code",
    "next_step",
    "next_step_at",
    "why",
)
# A cell that begins with one of these is a formula to a spreadsheet (OWASP, CSV injection).
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")


class _Echo:
    """What csv.writer writes to: gives every line straight back."""

    def write(self, line: str) -> str:
        return line


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """CSV text line by line (RFC 4180), header first, every cell neutralised."""
    writer = csv.writer(_Echo())
    yield writer.writerow(header)
    for row in rows:
        yield writer.writerow([neutral(cell) for cell in row])


def neutral(cell: str) -> str:
    """The cell as text that no spreadsheet takes for a formula: an apostrophe goes before a dangerous first
    character.
    """
    return f"'{cell}" if cell.lstrip(" ").startswith(_DANGEROUS) else cell


def invoice_cells(row: InvoiceRow) -> list[str]:
    """One line of the invoice export; states and codes as stored, no personal data."""
    invoice, case, open_case = row.invoice, row.case, row.open_case

    def amount(minor: int) -> str:
        return str(to_decimal(minor, invoice.currency))

    return [
        invoice.public_id,
        invoice.number,
        invoice.provider_invoice_id or "",
        invoice.customer.connector_customer_id,
        invoice.status,
        invoice.currency,
        amount(invoice.amount_minor),
        amount(invoice.paid_minor),
        amount(invoice.refunded_minor),
        amount(invoice.credited_minor),
        amount(invoice.due_minor),
        _instant(invoice.issued_at),
        _instant(invoice.settled_at),
        case.public_id if case else "",
        case.status if case else "",
        _instant(case.opened_at) if case else "",
        _instant(case.closed_at) if case else "",
        case.category if case else "",
        case.code if case else "",
        open_case.next_step if open_case else "",
        _instant(open_case.next_step_at) if open_case else "",
        open_case.why if open_case else "",
    ]


def _instant(value: datetime | None) -> str:
    return value.astimezone(UTC).isoformat(timespec="seconds") if value else ""
