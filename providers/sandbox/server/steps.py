"""Script steps: what one call to the sandbox does, written as `name` or `name:argument`."""

from dataclasses import dataclass
from enum import StrEnum

MAX_SECONDS = 60.0
DEFAULT_RETRY_AFTER_SECONDS = 30
DEFAULT_SLOW_SECONDS = 5.0

# ISO 8583 response codes an issuer would send beside these decline codes; a code not listed has none.
NETWORK_CODES = {
    "authentication_required": "1A",
    "card_velocity_exceeded": "65",
    "do_not_honor": "05",
    "expired_card": "54",
    "fraudulent": "59",
    "generic_decline": "05",
    "incorrect_cvc": "N7",
    "incorrect_number": "14",
    "incorrect_pin": "55",
    "insufficient_funds": "51",
    "invalid_account": "14",
    "issuer_not_available": "91",
    "lost_card": "41",
    "pickup_card": "04",
    "processing_error": "96",
    "reenter_transaction": "19",
    "restricted_card": "62",
    "revocation_of_all_authorizations": "R3",
    "revocation_of_authorization": "R1",
    "stolen_card": "43",
    "stop_payment_order": "R0",
    "transaction_not_allowed": "57",
    "withdrawal_count_limit_exceeded": "65",
}


class StepKind(StrEnum):
    OK = "ok"
    DECLINE = "decline"
    PENDING = "pending"
    TIMEOUT_BEFORE = "timeout_before"
    TIMEOUT_AFTER_CHARGE = "timeout_after_charge"
    RESET_AFTER_CHARGE = "reset_after_charge"
    HTTP500_BEFORE = "http500_before"
    HTTP500_AFTER_CHARGE = "http500_after_charge"
    HTTP429 = "http429"
    MALFORMED = "malformed"
    SLOW = "slow"
    LATE = "late"


UNMOVED = frozenset({StepKind.TIMEOUT_BEFORE, StepKind.HTTP500_BEFORE, StepKind.HTTP429})


class StepError(ValueError):
    """A step that cannot be read; the message says which steps there are."""


@dataclass(frozen=True, slots=True)
class Decline:
    """`network_code` is the issuer's response code, `advice_code` the network's advice (Mastercard MAC)."""

    code: str
    network_code: str | None = None
    advice_code: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `seconds` is the delay of slow and late and the Retry-After of http429."""

    kind: StepKind
    decline: Decline | None = None
    seconds: float = 0.0


def decline_for(code: str, network_code: str = "", advice_code: str = "") -> Decline:
    """A decline with the usual network code of `code` filled in where none is given."""
    return Decline(code, network_code or NETWORK_CODES.get(code), advice_code or None)


def parse_step(text: object) -> Step:
    """Read `ok`, `decline:code[:network code[:advice code]]`, `slow:seconds` and so on; raises StepError."""
    if not isinstance(text, str):
        raise StepError(f"A step must be a string, not {text!r}.")
    name, colon, argument = text.partition(":")
    if colon and not argument:
        raise StepError(f"Step {text!r} ends in a colon; give its argument or leave the colon out.")
    try:
        kind = StepKind(name)
    except ValueError:
        raise StepError(f"Unknown step {text!r}; use one of {', '.join(StepKind)}.") from None
    if kind is StepKind.DECLINE:
        return Step(kind, _decline(text, argument))
    if kind is StepKind.HTTP429:
        return Step(kind, seconds=float(_whole_seconds(text, argument)))
    if kind in (StepKind.SLOW, StepKind.LATE):
        return Step(kind, seconds=_seconds(text, argument))
    if argument:
        raise StepError(f"Step {name!r} takes no argument; send {name!r} instead of {text!r}.")
    return Step(kind)


def _decline(text: str, argument: str) -> Decline:
    parts = argument.split(":") if argument else ["generic_decline"]
    if len(parts) > 3 or not parts[0]:
        raise StepError(f"Step {text!r} must read decline:code[:network_code[:advice_code]].")
    return decline_for(*parts)


def _whole_seconds(text: str, argument: str) -> int:
    if not argument:
        return DEFAULT_RETRY_AFTER_SECONDS
    if not (argument.isascii() and argument.isdigit() and len(argument) <= 6):
        raise StepError(f"Step {text!r} needs whole seconds of up to six digits, as in http429:30.")
    return int(argument)


def _seconds(text: str, argument: str) -> float:
    try:
        seconds = float(argument) if argument else DEFAULT_SLOW_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_SECONDS:
        raise StepError(f"Step {text!r} needs 0 to {MAX_SECONDS:g} seconds, as in slow:5 or slow:0.2.")
    return seconds
