"""Failures without an answer about the payment (DESIGN section 6).

What provably did not happen may be sent again; after anything else nobody knows, and the outcome is looked
up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from retries.categories import Actor, Category, RetryClass, Scope
from retries.classification.types import Classification, TransportError


@dataclass(frozen=True, slots=True)
class _Answer:
    category: Category
    explanation: str
    retry_class: RetryClass = RetryClass.NEVER
    scope: Scope = Scope.INVOICE
    actor: Actor = Actor.MACHINE
    happened: bool | None = None  # None: nobody knows


_ANSWERS: Mapping[TransportError, _Answer] = {
    TransportError.UNSENT: _Answer(
        Category.NETWORK_ERROR,
        "The request provably never left us, so it is sent again at once.",
        RetryClass.IMMEDIATE,
        Scope.CONNECTION,
        happened=False,
    ),
    TransportError.TIMEOUT: _Answer(
        Category.NETWORK_ERROR,
        "The provider did not answer in time, so whether it charged is looked up before anything else.",
    ),
    TransportError.CONNECTION_LOST: _Answer(
        Category.NETWORK_ERROR,
        "The connection broke after sending, so whether it charged is looked up before anything else.",
    ),
    TransportError.SERVER_ERROR: _Answer(
        Category.SERVICE_UNAVAILABLE,
        "The provider failed while working, so whether it charged is looked up before anything else.",
    ),
    TransportError.MALFORMED_REPLY: _Answer(
        Category.PROCESSING_ERROR,
        "The provider's answer makes no sense, so whether it charged is looked up before anything else.",
    ),
    TransportError.RATE_LIMITED: _Answer(
        Category.RATE_LIMITED,
        "The provider refused the request because there were too many, so it is sent again later.",
        RetryClass.LATER,
        Scope.CONNECTION,
        happened=False,
    ),
    TransportError.UNAUTHORIZED: _Answer(
        Category.CONFIG_ERROR,
        "The provider rejected our credentials, so the whole connection waits until they are corrected.",
        RetryClass.AFTER_ENGINEERING_FIX,
        Scope.CONNECTION,
        Actor.ENGINEERING,
        happened=False,
    ),
    TransportError.REQUEST_REFUSED: _Answer(
        Category.CONFIG_ERROR,
        "The provider rejected the request itself, so this invoice waits until the mistake is corrected.",
        RetryClass.AFTER_ENGINEERING_FIX,
        Scope.INVOICE,
        Actor.ENGINEERING,
        happened=False,
    ),
}


def classify_transport(error: TransportError) -> Classification:
    """The classification of a call that ended without an answer about the payment."""
    answer = _ANSWERS[error]
    return Classification(
        category=answer.category,
        retry_class=answer.retry_class,
        scope=answer.scope,
        actor=answer.actor,
        source=f"transport error {error}",
        explanation=answer.explanation,
        payer_text_key="temporary_problem",
        known=True,
        look_up=answer.happened is None,
        reached_network=answer.happened is not False,
    )
