"""What an answer says about the connection, the card and the token it was given for, kept for every other invoice."""

from datetime import datetime

from invoices.models import Attempt
from invoices.services.parties import connection_pause
from invoices.states import Origin
from providers.base import DeclineFacts
from retries.categories import Category
from retries.categories import Scope as Reach
from retries.classification import Classification
from retries.locking import Scope
from tokens.selectors import token_has_another_card
from tokens.services import cards_stop, cards_wait, token_decline, token_hold


def connection_mark(attempt: Attempt, verdict: Classification) -> None:
    """Our own call was refused for the connection's configuration: nothing more is sent through it until repaired."""
    ours = attempt.origin == Origin.OURS
    if ours and verdict.category is Category.CONFIG_ERROR and verdict.scope is Reach.CONNECTION:
        connection_pause(connection_pk=attempt.connection_id, reason=verdict.explanation)


def method_mark(
    scope: Scope, attempt: Attempt, verdict: Classification, decline: DeclineFacts, failed_at: datetime
) -> None:
    """Remember what the answer says about the token and the card, for every invoice that could use them."""
    card = scope.card(attempt.card_id)
    code = decline.raw_code or decline.network_code or decline.advice_code
    if card is not None:
        group = [other for other in scope.cards if other.budget_group == card.budget_group]
        if verdict.stop:
            reason = decline.advice_code or decline.network_code or code
            # Told late, of a card replaced meanwhile: only a stop that outlives replacements reaches the new one.
            replaced = verdict.revivable and token_has_another_card(attempt.token_id, card.pk)
            stopped = [card] if replaced else group
            cards_stop(cards=stopped, code=reason, revivable=verdict.revivable, now=failed_at)
        elif verdict.wait is not None:
            cards_wait(cards=group, until=failed_at + verdict.wait)
    hard = verdict.category in (Category.HARD_DECLINE, Category.FRAUD_FLAGGED)
    if attempt.token_id is not None and hard:
        token_decline(token_pk=attempt.token_id, code=code, now=failed_at, card_pk=attempt.card_id)
    if attempt.token_id is not None and verdict.category is Category.CONFIG_ERROR and verdict.scope is Reach.TOKEN:
        token_hold(token_pk=attempt.token_id, code=code, now=failed_at)
