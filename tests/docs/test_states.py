"""The state diagrams in the documentation are the tables in the code."""

from collections.abc import Sequence

import pytest
from django.conf import settings

from invoices.states import ATTEMPT_MOVES, DISPUTE_MOVES, INVOICE_MOVES, TRANSACTION_MOVES
from notifications.states import DELIVERY_MOVES, MESSAGE_MOVES
from recovery_site.common.states import Move, mermaid
from retries.states import CASE_MOVES, JOB_MOVES
from webhooks.states import DELIVERY_MOVES as WEBHOOK_DELIVERY_MOVES
from webhooks.states import INBOX_MOVES

DIAGRAMS = {
    "Invoice": INVOICE_MOVES,
    "Transaction": TRANSACTION_MOVES,
    "Attempt": ATTEMPT_MOVES,
    "Dispute": DISPUTE_MOVES,
    "Retry job": JOB_MOVES,
    "Case": CASE_MOVES,
    "Inbox event": INBOX_MOVES,
    "Message": MESSAGE_MOVES,
    "Alert delivery": DELIVERY_MOVES,
    "Webhook delivery": WEBHOOK_DELIVERY_MOVES,
}


@pytest.mark.parametrize(("name", "moves"), DIAGRAMS.items())
def test_the_diagram_of_each_state_machine_is_the_one_in_the_code(name: str, moves: Sequence[Move]) -> None:
    page = (settings.BASE_DIR / "docs" / "states.md").read_text(encoding="utf-8")
    section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
    assert f"```mermaid\n{mermaid(moves)}\n```" in section
