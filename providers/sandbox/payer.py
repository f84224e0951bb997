"""What payers do at the sandbox: the form is ours, and a confirmation is a line of the token's script."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from providers.base import CardFacts, MethodFacts
from providers.payer import TrialCard
from providers.sandbox.client import SandboxClient
from providers.sandbox.server.tokens import parse_token

_NAMES = {
    TrialCard.OK: "tok_ok",
    TrialCard.FUNDS: "tok_decline_insufficient_funds",
    TrialCard.EXPIRED: "tok_decline_expired_card",
}


class SandboxPayer:
    """Built from a connection's config, as the client is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._client = SandboxClient(config)

    def card_add(self, card: TrialCard, *, serial: str, at: datetime) -> MethodFacts:
        token = f"{_NAMES[card]}__{serial}"
        known = parse_token(token).card
        facts = CardFacts(
            fingerprint=known.fingerprint,
            network=known.brand,
            last4=known.last4,
            exp_month=known.exp_month,
            exp_year=known.exp_year,
        )
        return MethodFacts(token=token, card=facts, is_default=True)

    def confirm(self, token: str) -> None:
        self._client.script(token, ["ok"])
