"""The order of authority among the things that are known about one failure (DESIGN section 8).

1. A transport error without an answer from the provider.
2. The network's stop (Mastercard MAC 03 and 21, Visa category 1, or the same in the provider's words).
3. The merchant's override of the provider's code, except where the payment may have gone through.
4. Advice: Mastercard's MAC, then the provider's own.
5. The network's response code, unless it is less telling than the provider's code or would soften a `never`.
6. The provider's code.
7. Nothing known: SOFT_DECLINE, `known=False`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from providers.decline_tables import DeclineRow, DeclineTables
from retries.categories import Actor, Category, RetryClass, Scope
from retries.classification.explain import explain, payer_text_key
from retries.classification.transport import classify_transport
from retries.classification.types import (
    Classification,
    ClassificationInput,
    Overrides,
    override_key,
)
from tokens.advice import AdviceEffect, advice_effect, code_of
from tokens.networks import UNKNOWN, normalise_network

Networks = Mapping[str, Mapping[str, DeclineRow]]

_UNKNOWN_ROW = DeclineRow(
    code="",
    category=Category.SOFT_DECLINE,
    retry=RetryClass.LATER,
    scope=Scope.TOKEN,
    actor=Actor.MACHINE,
    note="",
    source="default",
)
_NETWORK_TABLES = {
    "visa": ("visa", "iso8583"),
    "mastercard": ("mastercard_mac", "iso8583"),
    "maestro": ("mastercard_mac", "iso8583"),
    "ach": ("ach",),
    "sepa": ("sepa",),
    "bacs": ("bacs",),
}
_MAC_NETWORKS = frozenset({"mastercard", "maestro", UNKNOWN})
# MAC 43 (multi-use virtual card) describes the card, 05 is about a negotiated amount: neither is about a
# retry.
_SILENT_MACS = frozenset({"05", "43"})
_PROVIDER_ADVICE_PREFIXES = ("advice_code:", "recommendation_code:")
_ABOUT_THE_PAYER = frozenset({Category.SOFT_DECLINE, Category.INSUFFICIENT_FUNDS, Category.AUTHENTICATION_REQUIRED})


@dataclass(frozen=True, slots=True)
class _Finding:
    """A row and where it came from, on its way to becoming the answer."""

    row: DeclineRow
    source: str
    known: bool = True
    final: bool = False  # a person decided this, so nobody's hint adjusts it


def classify(
    failure: ClassificationInput, tables: DeclineTables, overrides: Overrides = MappingProxyType({})
) -> Classification:
    """Classify one failure of `failure.provider` with that provider's `tables`. Never raises, whatever the
    codes."""
    if failure.transport_error is not None:
        return classify_transport(failure.transport_error)
    provider_row = _provider_row(failure, tables.provider)
    advice = _provider_advice(failure, tables.provider)
    effect = _effect(failure, provider_row, advice)
    finding = _decide(failure, tables.networks, effect, provider_row, advice, overrides)
    row = finding.row if finding.final else _with_hint(finding.row, failure, advice)
    if effect.stop and not row.look_up:
        row = _stopped(row)
    source = effect.source if effect.stop else finding.source
    known = finding.known or effect.stop
    return Classification(
        category=row.category,
        retry_class=row.retry,
        scope=row.scope,
        actor=row.actor,
        source=source,
        explanation=explain(failure, row, effect, source, known=known),
        payer_text_key=payer_text_key(row.category, provider_row or row),
        known=known,
        code_listed=not failure.code or provider_row is not None,
        look_up=row.look_up,
        stop=effect.stop,
        revivable=effect.revivable,
        wait=max((wait for wait in (effect.wait, row.wait) if wait is not None), default=None),
        reached_network=failure.sent_to_network and not (provider_row is not None and provider_row.unsent),
    )


def doubted(verdict: Classification) -> Classification:
    """The verdict when neither signature nor password vouches for the reason.

    What would end a card, a token or a case for good holds back the automatic retry instead, and marks nothing: the
    customer or staff go on, and so does whatever the provider says under a signature. What is milder stands.
    """
    final = verdict.stop or verdict.category in (Category.HARD_DECLINE, Category.FRAUD_FLAGGED)
    if not final:
        return verdict
    return replace(
        verdict,
        category=Category.SOFT_DECLINE,
        retry_class=RetryClass.AFTER_CUSTOMER_ACTION,
        scope=Scope.TOKEN,
        actor=Actor.CUSTOMER,
        explanation=f"Nobody vouches for this reason, so nothing lasting follows from it: {verdict.explanation}",
        payer_text_key=payer_text_key(Category.SOFT_DECLINE, _UNKNOWN_ROW),
        stop=False,
        wait=None,
    )


def _decide(
    failure: ClassificationInput,
    networks: Networks,
    effect: AdviceEffect,
    provider_row: DeclineRow | None,
    advice: DeclineRow | None,
    overrides: Overrides,
) -> _Finding:
    base = _base(failure, provider_row, _network_finding(failure, networks))
    if effect.stop or base.row.look_up:
        return base
    if (override := _override(failure, overrides)) is not None:
        return override
    mac = _mac(failure, networks)
    if mac is not None and _overrules(mac.row, base):
        return mac
    if advice is not None and _overrules(advice, base):
        return _Finding(advice, f"{failure.provider} advice, {advice.source}")
    return base


def _base(failure: ClassificationInput, provider_row: DeclineRow | None, network: _Finding | None) -> _Finding:
    """The better of the provider's code and the network's response code."""
    if provider_row is None:
        return network or _Finding(
            _UNKNOWN_ROW,
            "default for unknown codes" if failure.code else "default without a code",
            known=False,
        )
    if network is not None and _more_telling(network.row, provider_row):
        return network
    return _Finding(provider_row, f"{failure.provider} table, {provider_row.source}")


def _more_telling(network: DeclineRow, provider: DeclineRow) -> bool:
    """A generic refusal says no more than a precise code; nothing softens a `never` or hides a look-up."""
    if provider.look_up or provider.stop or network.category is Category.SOFT_DECLINE:
        return False
    return provider.retry is not RetryClass.NEVER or network.retry is RetryClass.NEVER


def _overrules(advice: DeclineRow, base: _Finding) -> bool:
    """Advice that stops or asks for new data always wins; `later` only replaces what says less than it does.

    It never lifts a `never`, suspected fraud or a mistake of ours.
    """
    row = base.row
    if row.category is Category.FRAUD_FLAGGED:
        return False  # it is final already, and staff have to hear of it
    if row.category is Category.CONFIG_ERROR or row.retry is RetryClass.NEVER:
        return advice.retry is RetryClass.NEVER
    if advice.retry is not RetryClass.LATER:
        return True
    return row.category in (Category.HARD_DECLINE, Category.SOFT_DECLINE)


def _provider_row(failure: ClassificationInput, table: Mapping[str, DeclineRow]) -> DeclineRow | None:
    """The row of the decline code, else of the wider code beside it unless that is only an umbrella."""
    if failure.raw_code.strip():
        row = table.get(failure.raw_code)
        if row is not None:
            return row
    wider = table.get(failure.fallback_code) if failure.fallback_code.strip() else None
    if wider is not None and wider.category is Category.SOFT_DECLINE and failure.raw_code.strip():
        return None  # the precise code is new to us, and the report of unknown codes must say so
    return wider


def _provider_advice(failure: ClassificationInput, table: Mapping[str, DeclineRow]) -> DeclineRow | None:
    """The provider's own advice, wherever it was put: some send it in the field of the network's advice."""
    for text in (failure.provider_advice.strip(), failure.advice_code.strip()):
        for prefix in _PROVIDER_ADVICE_PREFIXES if text else ():
            row = table.get(prefix + text)
            if row is not None:
                return row
    return None


def _effect(failure: ClassificationInput, provider_row: DeclineRow | None, advice: DeclineRow | None) -> AdviceEffect:
    """The network's demand, or the same demand in the provider's words."""
    effect = advice_effect(failure.network, failure.network_code, failure.advice_code)
    stops = [row for row in (provider_row, advice) if row is not None and row.stop]
    if not stops:
        return effect
    lasting = any(row.lasting for row in stops) or not effect.revivable
    source = effect.source if effect.stop else f"{failure.provider} table, {stops[0].source}"
    return AdviceEffect(stop=True, wait=None, revivable=not lasting, source=source)


def _network_finding(failure: ClassificationInput, networks: Networks) -> _Finding | None:
    network = normalise_network(failure.network)
    code = failure.network_code.strip()
    short = code_of(code)
    if not short:
        return None
    for name in _NETWORK_TABLES.get(network, ("iso8583",)):
        # In the Mastercard table plain numbers are advice codes; its response codes are written DE39-79.
        for candidate in (f"DE39-{short}",) if name == "mastercard_mac" else (code, short):
            row = networks[name].get(candidate)
            if row is not None:
                return _Finding(row, f"{network} response code {row.code}, {row.source}")
    return None


def _mac(failure: ClassificationInput, networks: Networks) -> _Finding | None:
    code = code_of(failure.advice_code)
    if normalise_network(failure.network) not in _MAC_NETWORKS or code in _SILENT_MACS:
        return None
    row = networks["mastercard_mac"].get(code) if code else None
    return None if row is None else _Finding(row, f"network advice {code}, {row.source}")


def _override(failure: ClassificationInput, overrides: Overrides) -> _Finding | None:
    chosen = overrides.get(override_key(failure.provider, failure.code))
    if chosen is None or not failure.code:
        return None
    row = DeclineRow(
        code=chosen.code,
        category=chosen.category,
        retry=chosen.retry_class,
        scope=chosen.scope,
        actor=chosen.actor,
        note="",
        source="merchant",
    )
    return _Finding(row, f"merchant override version {chosen.version}", final=True)


def _with_hint(row: DeclineRow, failure: ClassificationInput, advice: DeclineRow | None) -> DeclineRow:
    """The row after the provider's own word on a plain retry of this very payment."""
    may_retry = failure.provider_says_retry is True or (
        advice is not None and advice.retry is RetryClass.LATER and failure.provider_says_retry is None
    )
    waits_for_payer = row.retry is RetryClass.AFTER_CUSTOMER_ACTION
    if may_retry and row.category is Category.AUTHENTICATION_REQUIRED and waits_for_payer:
        return replace(row, retry=RetryClass.LATER, actor=Actor.MACHINE)
    if failure.provider_says_retry is False and row.retry in (RetryClass.LATER, RetryClass.IMMEDIATE):
        if row.category in _ABOUT_THE_PAYER:
            return replace(row, retry=RetryClass.AFTER_CUSTOMER_ACTION, actor=Actor.CUSTOMER)
        return replace(row, retry=RetryClass.NEVER, actor=Actor.STAFF)
    return row


def _stopped(row: DeclineRow) -> DeclineRow:
    """The row under a stop: never on this card, another card or the customer is next; fraud stays fraud."""
    if row.category is Category.FRAUD_FLAGGED:
        return replace(row, retry=RetryClass.NEVER, actor=Actor.STAFF, wait=None)
    return replace(
        row,
        category=Category.HARD_DECLINE,
        retry=RetryClass.NEVER,
        scope=Scope.TOKEN,
        actor=Actor.CUSTOMER,
        wait=None,
    )
