"""One provider's HTTP API, and what its answers mean: a result, or one of the two kinds of not knowing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar

from providers.base import ChargeResult, Outcome, ProviderUnavailable, ProviderUncertain
from providers.wire.reading import RecordMalformed
from providers.wire.transport import Answer, Transport, Unanswered, Unsent
from recovery_site.common.scrubbing import scrub_text

# Names of request errors (ChargeResult.error_code) that are not the provider's own codes.
NETWORK_ERROR = "network_error"
RATE_LIMITED = "rate_limit_exceeded"
UNAUTHORISED = "authentication_failed"
RAW_CHARACTERS = 2048
_LONGEST_WAIT = timedelta(days=1)
# Refusals that do not prove that nothing happened: the key is at work or used up, or a gateway gave up.
UNCERTAIN_STATUS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY})

ResultT = TypeVar("ResultT")
Parse = Callable[[Mapping[str, Any]], ResultT]


@dataclass(frozen=True, slots=True)
class ProviderApi:
    """`title` is what messages call the provider; `code` finds the provider's own error code in a refusal."""

    title: str
    transport: Transport
    code: Callable[[Answer], str]
    uncertain_codes: frozenset[str] = frozenset()
    # Refuses without a body too; with other providers a page in its place is somebody else's word.
    bare_refusals: bool = False
    # Repeats in every answer what it is about; else only what is told is compared.
    echoes: bool = True
    unread_hint: str = "it is asked again later"

    # Writing: what is not surely known is ProviderUncertain.

    def write(self, method: str, path: str, **options: Any) -> Answer | ChargeResult:
        """Send a write. What never left is an ERRORED result; raises ProviderUncertain if the answer got lost."""
        try:
            return self.transport.send(method, path, **options)
        except Unsent as error:
            return errored(NETWORK_ERROR, raw={"error": str(error)})
        except Unanswered as error:
            raise self.uncertain(f"gave no answer ({error})", None) from None

    def refused(self, answer: Answer) -> bool:
        """True for a 4xx that proves that nothing was done: too many requests, or an error of the provider's own."""
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return True
        if not 400 <= answer.status < 500 or answer.status in UNCERTAIN_STATUS:
            return False
        if answer.body is None and not self.bare_refusals:
            return False
        return self.code(answer) not in self.uncertain_codes

    def refusal(self, answer: Answer) -> ChargeResult:
        """The result of a refused request: it surely did not happen."""
        raw = {"status": answer.status, "body": shown(answer)}
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return errored(RATE_LIMITED, raw=raw, retry_after=wait(answer))
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return errored(UNAUTHORISED, raw=raw)
        return errored(self.code(answer) or f"http_{answer.status}", raw=raw)

    def result(self, answer: Answer, parse: Parse[ChargeResult], **expected: object) -> ChargeResult:
        """A write's answer as its result; one about something else than `expected` (result fields) is uncertain."""
        if self.refused(answer):
            return self.refusal(answer)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or answer.body is None:
            raise self.uncertain(f"answered {answer.status} without a result", answer)
        return self.parsed(answer, parse, **expected)

    def parsed(self, answer: Answer, parse: Parse[ChargeResult], **expected: object) -> ChargeResult:
        """The body as a result; impossible or foreign ones are ProviderUncertain."""
        try:
            result = parse(answer.body or {})
        except RecordMalformed as error:
            raise self.uncertain(f"answered with an impossible {error}", answer) from None
        told = {name: getattr(result, name) for name in expected}
        wrong = [
            _NAMES.get(name, name)
            for name, value in expected.items()
            if told[name] != value and (self.echoes or told[name] not in ("", None))
        ]
        if wrong:
            raise self.uncertain(f"answered about another {' and '.join(wrong)}", answer)
        return result

    def uncertain(self, what: str, answer: Answer | None) -> ProviderUncertain:
        facts = {"status": answer.status, "body": shown(answer)} if answer else {}
        return ProviderUncertain(f"{self.title} {what}; look the payment up before sending anything again.", **facts)

    # Reading: any trouble is ProviderUnavailable, for nothing changed.

    def read(self, path: str, parameters: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, params=parameters)

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """A request that may be repeated at will, and that changes nothing a second time."""
        try:
            return self.transport.send(method, path, **options)
        except (Unsent, Unanswered) as error:
            raise ProviderUnavailable(f"{self.title} cannot be read now ({error}); {self.unread_hint}.") from None

    def found(self, answer: Answer, parse: Parse[ResultT], *, absent: str = "") -> ResultT | None:
        """A read's answer, None for the provider's own 404 (with the code `absent`, if its 404s have one)."""
        if answer.status == HTTPStatus.NOT_FOUND and answer.body is not None and self.code(answer) in ("", absent):
            return None
        return self.understood(answer, parse)

    def understood(self, answer: Answer, parse: Parse[ResultT]) -> ResultT:
        """The body of a successful read."""
        if answer.status != HTTPStatus.OK or answer.body is None:
            raise self.unreadable(f"with {answer.status}", answer)
        try:
            return parse(answer.body)
        except RecordMalformed as error:
            raise self.unreadable(f"with an impossible {error}", answer) from None

    def listed(
        self, pages: Iterable[list[Mapping[str, Any]]], parse: Parse[ChargeResult | None]
    ) -> Iterator[ChargeResult]:
        """The results of a list's pages, without those that `parse` passes over (None).

        Raises ProviderUnavailable for a record that cannot be read only after all others were yielded.
        """
        unreadable = ""
        for page in pages:
            for record in page:
                try:
                    result = parse(record)
                except RecordMalformed as error:
                    unreadable = str(error)
                    continue
                if result is not None:
                    yield result
        if unreadable:
            raise ProviderUnavailable(
                f"At least one payment at {self.title} could not be read: an impossible {unreadable}."
            )

    def unreadable(self, how: str, answer: Answer) -> ProviderUnavailable:
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            how = f"{how}: it refuses the credentials, replace them in the connection's settings"
        return ProviderUnavailable(
            f"{self.title} answered a look-up {how}.",
            status=answer.status,
            body=shown(answer),
            retry_after=wait(answer),
        )


_NAMES = {"provider_id": "payment's id", "payment_id": "payment", "amount_minor": "amount"}
# If one reference has several records, the one that moved money is the answer.
_MONEY_FIRST = (Outcome.SUCCEEDED, Outcome.AWAITING, Outcome.DECLINED, Outcome.ERRORED)


def best(found: list[ChargeResult]) -> ChargeResult | None:
    """The one of several results with one reference that counts, None if there is none."""
    return min(found, key=lambda result: _MONEY_FIRST.index(result.outcome), default=None)


def errored(code: str, *, raw: Mapping[str, Any], retry_after: timedelta | None = None) -> ChargeResult:
    return ChargeResult(outcome=Outcome.ERRORED, error_code=code[:100], retry_after=retry_after, raw=raw)


def wait(answer: Answer) -> timedelta | None:
    """How long the provider asks to wait, a day at most."""
    seconds = answer.retry_after_seconds
    return None if seconds is None else min(timedelta(seconds=seconds), _LONGEST_WAIT)


def shown(answer: Answer) -> str:
    """The answer for the record; scrubbed before it is cut, so that no half of a card number stays."""
    return scrub_text(answer.text[: 4 * RAW_CHARACTERS])[:RAW_CHARACTERS]


def with_record(result: ChargeResult, **more: Any) -> ChargeResult:
    """The result with more of the exchange in its `raw`."""
    return replace(result, raw={**result.raw, **more})
