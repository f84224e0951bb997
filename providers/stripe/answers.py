"""What an answer means for the caller: a definite result, None, or one of the two kinds of not knowing."""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from providers.base import ChargeResult, Outcome, ProviderUnavailable, ProviderUncertain
from providers.stripe.exchange import Answer, Fault, Problem, Reply
from providers.stripe.reading import Node
from providers.stripe.results import refusal_result
from recovery_site.common.errors import InvalidInput

ResultT = TypeVar("ResultT")
ArgumentsT = ParamSpec("ArgumentsT")


def write_result(answer: Answer, read: Callable[[Node, Mapping[str, Any]], ChargeResult], what: str) -> ChargeResult:
    """The result of a write. Only a definite answer becomes one; everything else is ProviderUncertain."""
    try:
        if isinstance(answer, Reply):
            return read(answer.body, answer.record)
        if answer.fault is Fault.REFUSED_PAYMENT:
            return refusal_result(answer.error, answer.record)
    except InvalidInput as error:
        raise ProviderUncertain(f"Whether the {what} happened is not known. {error.message}") from None
    if answer.fault is Fault.UNKNOWN:
        raise ProviderUncertain(
            f"Whether the {what} happened is not known: Stripe {answer.reason}.",
            status=answer.status,
            request_id=answer.request_id,
        )
    return ChargeResult(
        outcome=Outcome.ERRORED,
        error_code=answer.code or "invalid_request_error",
        retry_after=answer.retry_after,
        raw=answer.record if answer.status else {},
    )


def read_result(
    answer: Answer, read: Callable[[Node, Mapping[str, Any]], ResultT], *, absence_counts: bool = True
) -> ResultT | None:
    """The result of a read; None for 404 if that can be an answer. Everything else is ProviderUnavailable."""
    if isinstance(answer, Reply):
        return understood(read, answer.body, answer.record)
    if absence_counts and answer.status == 404 and answer.fault is Fault.REFUSED_REQUEST:
        return None
    raise unavailable(answer)


def understood(read: Callable[ArgumentsT, ResultT], *arguments: ArgumentsT.args, **named: ArgumentsT.kwargs) -> ResultT:
    """`read(...)`; an answer with an impossible field is no answer: ProviderUnavailable."""
    try:
        return read(*arguments, **named)
    except InvalidInput as error:
        raise ProviderUnavailable(error.message) from None


def unavailable(problem: Problem) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"Stripe {problem.reason}; nothing changed, it is asked again later.",
        provider_code=problem.code,
        status=problem.status,
        request_id=problem.request_id,
        retry_after=problem.retry_after,
    )
