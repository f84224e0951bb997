"""What payers do at the simulator: the form is ours, the memory its own."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from providers.base import MethodFacts
from providers.payer import TrialCard
from providers.simulator import issuer
from providers.simulator.client import simulator_ledger

_NAMES = {TrialCard.OK: "tok_ok", TrialCard.FUNDS: "tok_sim_funds", TrialCard.EXPIRED: "tok_decline_expired_card"}


class SimulatorPayer:
    """Built from a connection's config, as the client is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._ledger = simulator_ledger(config)

    def card_add(self, card: TrialCard, *, serial: str, at: datetime) -> MethodFacts:
        token = f"{_NAMES[card]}__{serial}"
        return MethodFacts(token=token, card=issuer.card_of(token, at), is_default=True)

    def confirm(self, token: str) -> None:
        self._ledger.confirm(token)
