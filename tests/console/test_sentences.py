"""Every event that the code can write has a sentence, and no event can break a page."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoices.states import ATTEMPT_MOVES, DISPUTE_MOVES, INVOICE_MOVES, TRANSACTION_MOVES
from recovery_site.console.sentences import KNOWN_KINDS, AttemptName, Line, Told, actor_name, cause_text, sentence

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def told(kind: str, **more: Any) -> Told:
    facts: dict[str, Any] = {
        "kind": kind,
        "subject_id": "att_1",
        "from_state": "",
        "to_state": "",
        "cause": "",
        "data": {},
        "occurred_at": AT,
        "currency": "USD",
        "attempts": {"att_1": AttemptName(2, "CHARGE", "Visa •••• 4242")},
    }
    return Told(**{**facts, **more})


# Calls that write an event: the ledger's, and those that hand a kind on to it.
_WRITERS = frozenset({"record_event", "_record", "_touch", "_acted", "_Wish"})


def written_kinds() -> set[str]:
    """Kinds that stand as literals in such calls, read from the source."""
    kinds = set()
    for app in ("invoices", "tokens", "retries", "webhooks", "notifications", "recovery_site"):
        for path in (ROOT / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _WRITERS:
                    given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "kind")]
                    literals = {str(value.value) for value in given if isinstance(value, ast.Constant)}
                    kinds |= {kind for kind in literals if re.fullmatch(r"[a-z]+\.[a-z_]+", kind)}
    # An alert brings its own sentence along.
    return {kind for kind in kinds if not kind.startswith("alert.")}


def test_every_kind_that_is_written_has_a_sentence_of_its_own() -> None:
    kinds = written_kinds()
    assert {"invoice.created", "attempt.sending", "case.planned", "staff.retry"} <= kinds
    moves = {
        f"{subject}.{move.name}"
        for subject, table in (
            ("invoice", INVOICE_MOVES),
            ("transaction", TRANSACTION_MOVES),
            ("attempt", ATTEMPT_MOVES),
            ("dispute", DISPUTE_MOVES),
        )
        for move in table
    }
    assert (kinds | moves) - KNOWN_KINDS == set()


def test_no_sentence_for_a_kind_that_nothing_writes() -> None:
    moved = {kind for kind in KNOWN_KINDS if kind.partition(".")[0] in ("invoice", "transaction", "attempt", "dispute")}
    assert KNOWN_KINDS - moved <= written_kinds()


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (told("invoice.created", data={"amount_minor": 4_990, "currency": "USD"}), "The invoice over $49.90 arrived."),
        (told("invoice.created", data={"amount_minor": 4_990, "currency": "JPY"}), "The invoice over ¥4,990 arrived."),
        (
            told("invoice.amount_changed", data={"from": [100, "USD"], "to": [250, "EUR"]}),
            "The amount changed from $1.00 to €2.50.",
        ),
        (
            told("attempt.sending", data={"amount_minor": 4_990, "currency": "USD", "kind": "CHARGE"}),
            "Attempt 2: charging $49.90 on Visa •••• 4242.",
        ),
        (
            told("attempt.decline", data={"raw_code": "do_not_honor", "category": "SOFT_DECLINE"}),
            "Attempt 2 on Visa •••• 4242 was declined: soft decline (do_not_honor).",
        ),
        (
            told("attempt.decline", data={"raw_code": "", "category": ""}),
            "Attempt 2 on Visa •••• 4242 was declined: reason not known yet.",
        ),
        (
            told("attempt.lose_track", data={"why": "No answer."}),
            "Nobody knows yet whether attempt 2 was charged; it is being looked up.",
        ),
        (
            told("attempt.wait", data={"expected_by": "2026-11-25T09:30:00+00:00"}),
            "Attempt 2 awaits settlement by the bank until Wed 25 Nov 09:30 UTC.",
        ),
        (
            told("case.closed", to_state="RECOVERED", data={"recovered_by": "retry", "reason": "paid"}),
            "The money was recovered by a retry.",
        ),
        (told("case.closed", to_state="LOST", data={"reason": "Given up."}), "Recovery was given up."),
        (
            told("case.planned", data={"step": "booked", "at": "2026-11-21T09:00:00+00:00", "why": "w"}),
            "Next step: Retry booked, Sat 21 Nov 09:00 UTC.",
        ),
        (
            told("review.resolved", data={"kind": "paid_twice", "resolution": "keep"}),
            "The question “Paid twice” was answered: keep.",
        ),
        (told("alert.exhausted", data={"text": "No retry is left."}), "No retry is left."),
        (
            told("invoice.cancel", data={"reason": "written_off"}),
            "The invoice was written off; nothing more is collected.",
        ),
        (
            told("transaction.succeed", subject_id="txn_1", refunds=frozenset({"txn_1"}), data={"captured_minor": 100}),
            "$1.00 was given back.",
        ),
        (
            told("transaction.credit", data={"settles_minor": 2500, "currency": "USD", "received": [2300, "EUR"]}),
            "€23.00 pays $25.00 of the debt, staff decided.",
        ),
        (
            told("note.closed", to_state="WRITTEN", data={"of": "refund", "record_id": "cn_1"}),
            "The billing system wrote our refund into its books.",
        ),
        (
            told("note.closed", to_state="REFUSED", data={"of": "payment", "why": "The invoice is void."}),
            "The billing system will not write our payment into its books.",
        ),
        (told("note.retried", data={"of": "payment"}), "Telling the billing system of our payment begins anew."),
    ],
)
def test_sentences(event: Told, text: str) -> None:
    assert sentence(event).text == text


def test_an_unknown_kind_is_still_readable() -> None:
    line = sentence(told("tax.rate_changed", from_state="LOW", to_state="HIGH", data={"new_rate": 19, "empty": ""}))
    assert line == Line("Tax: rate changed (LOW to HIGH).", detail="new rate: 19", minor=True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(
    kind=st.sampled_from([*sorted(KNOWN_KINDS), "alert.x", "x.y", "", "plain"]),
    data=st.dictionaries(
        st.sampled_from(
            ["amount_minor", "captured_minor", "currency", "kind", "at", "step", "from", "to", "reason", "trigger"]
        ),
        json_values,
        max_size=5,
    ),
    to_state=st.sampled_from(["", "DONE", "LOST", "RECOVERED", "x"]),
    known=st.booleans(),
)
def test_no_data_can_break_a_sentence(kind: str, data: dict[str, Any], to_state: str, known: bool) -> None:
    attempts = {"att_1": AttemptName(1, "REFUND", "")} if known else {}
    line = sentence(told(kind, data=data, to_state=to_state, attempts=attempts))
    assert line.text
    assert line.tone in {"accent", "success", "warning", "danger", "info", "violet", "neutral"}


@pytest.mark.parametrize(
    ("actor", "name"),
    [
        ("user:7", "Ann Lee"),
        ("user:8", "A former member of staff"),
        ("system:engine", "Recovery engine"),
        ("provider:stripe", "Stripe's report"),
        ("api:rk_1", "API key rk_1"),
        ("system", "Recovery engine"),
        ("something_else", "Something else"),
    ],
)
def test_actors_have_names(actor: str, name: str) -> None:
    assert actor_name(actor, {"user:7": "Ann Lee"}) == name


def test_only_a_persons_cause_is_worth_reading() -> None:
    assert cause_text("staff: asked on the phone: twice") == "asked on the phone: twice"
    assert cause_text("job:12") == ""
