"""What a billing system answers when it is told of a payment or refund that was made elsewhere."""

from http import HTTPStatus

from providers.base import ChargeResult, ProviderUnavailable
from providers.billing import NoteOutcome, NoteResult
from providers.wire.api import Parse, ProviderApi, shown
from providers.wire.reading import RecordMalformed
from providers.wire.transport import Answer

# A refusal of these says nothing about the note: the same one comes again.
_NOT_ABOUT_IT = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})


def note_result(api: ProviderApi, answer: Answer | ChargeResult, record_id: Parse[str]) -> NoteResult:
    """A written note's answer; `record_id` finds the biller's id of it.

    Raises ProviderUnavailable, or ProviderUncertain where nobody knows whether it was written.
    """
    if isinstance(answer, ChargeResult):
        raise ProviderUnavailable(f"{api.title} could not be reached; it is told again later.")
    if api.refused(answer):
        if answer.status in _NOT_ABOUT_IT:
            raise api.unreadable(f"with {answer.status}", answer)
        return NoteResult(outcome=NoteOutcome.REFUSED, why=f"{api.title} refused it: {shown(answer)}"[:400])
    if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or answer.body is None:
        raise api.uncertain(f"answered {answer.status} to a note", answer)
    try:
        return NoteResult(outcome=NoteOutcome.WRITTEN, record_id=record_id(answer.body))
    except RecordMalformed as error:
        raise api.uncertain(f"answered a note with an impossible {error}", answer) from None
