"""Signed bodies with something wrong in them: understood, ignored or refused, never anything else.

Through signature, splitting, scrubbing and parsing of every dialect; tests/webhooks/test_mutated_road.py goes on from
there into the ledger.
"""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from providers import registry
from providers.base import Ignored, InboundItem, InboundRequest, PaymentEvent, Thin
from recovery_site.common.errors import RecoveryError
from recovery_site.common.scrubbing import scrub
from tests.contract.dialect_fixtures import FIXTURES
from tests.support.mutating import PROVIDERS, bases, mutant
from tests.support.signing import SECRETS, delivery


def answer(provider: str, payload: Mapping[str, Any] | bytes) -> str:
    """What the front door and the inbox make of a body; anything but a typed refusal is let through."""
    sent = delivery(provider, payload, at=1_767_258_000)
    headers = {name.lower(): value for name, value in sent.headers.items()}
    dialect = registry.dialect(provider)
    try:
        request = InboundRequest(sent.body, headers)
        proof = dialect.verify(request, [SECRETS[provider]], now=1_767_258_001, tolerance_seconds=300)
        kinds = []
        for item in dialect.split(request):
            stored = json.loads(json.dumps(scrub(dict(item.payload))))
            meaning = dialect.parse(InboundItem(item.event_id, item.event_type, item.order_key, stored, proof))
            assert isinstance(meaning, PaymentEvent | Thin | Ignored)
            kinds.append(type(meaning).__name__)
        return kinds[0] if kinds else "nothing"
    except RecoveryError as error:
        return error.code


@pytest.mark.parametrize("cases", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_spoiled_body_is_understood_ignored_or_refused(provider: str, cases: int) -> None:
    chance, found = random.Random(f"spoiled {provider}"), bases(provider)
    answers: dict[str, int] = {}
    for _ in range(cases):
        try:
            told = answer(provider, mutant(chance, provider, found))
        except UnicodeEncodeError:
            continue  # half a character cannot be sent at all
        answers[told] = answers.get(told, 0) + 1
    assert answers.get("PaymentEvent", 0) + answers.get("Thin", 0) > 0
    assert answers.keys() <= {"PaymentEvent", "Thin", "Ignored", "body_malformed", "invalid_input", "signature_invalid"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_bodies_themselves_are_understood_or_ignored(provider: str) -> None:
    for base in bases(provider):
        assert answer(provider, base) in ("PaymentEvent", "Thin", "Ignored"), base


def test_card_data_is_gone_before_anything_is_stored() -> None:
    body = (FIXTURES / "braintree" / "subscription_charged_unsuccessfully.xml").read_bytes()
    sent = delivery("braintree", body)
    (item,) = registry.dialect("braintree").split(InboundRequest(sent.body, {}))
    stored = json.dumps(scrub(dict(item.payload)))
    assert "5204240000004444" in json.dumps(item.payload)
    assert "5204240000004444" not in stored
    assert '"cvv": "[filtered]"' in stored
    assert '"last-4": "4444"' in stored
