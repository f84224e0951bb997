"""Why one token was chosen and each other one was not, in words that a stored decision keeps. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tokens.selectors import TokenOption, tie_order

# What decides between two that could go at the same instant, as `tie_order` does.
_TIES = (
    "another one was paid with more recently",
    "another one is the customer's default",
    "another one is good for longer",
    "another one is known for longer",
)


@dataclass(frozen=True, slots=True)
class Considered:
    """One token of a decision. `reason` says why it was chosen, why another went first, or what stands in its way."""

    option: TokenOption
    chosen: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """JSON; ids are ours, so that it may stand in an event."""
        option = self.option
        return {
            "token": option.public_id,
            "chosen": self.chosen,
            "reason": self.reason,
            "usable": option.usable,
            "obstacle": option.obstacle,
            "allowed_at": option.allowed_at.isoformat(),
            "limit": option.limit_text,
            "remaining": option.remaining,
        }


def considered(options: Sequence[TokenOption], chosen_pk: int | None) -> list[dict[str, Any]]:
    """Every token of the customer as the decision saw it, in the order of their rank, each with its reason."""
    chosen = next((option for option in options if option.pk == chosen_pk), None)
    return [Considered(option, option is chosen, _reason(option, chosen)).as_dict() for option in options]


def _reason(option: TokenOption, chosen: TokenOption | None) -> str:
    if not option.usable:
        return option.obstacle
    if option is chosen:
        return f"chosen; waits: {option.limit_text}" if option.limit_text else "chosen"
    if chosen is None:
        return f"not before {_text(option.allowed_at)}: {option.limit_text}" if option.limit_text else "not asked for"
    if option.allowed_at > chosen.allowed_at:
        return f"not before {_text(option.allowed_at)}: {option.limit_text}"
    if option.allowed_at < chosen.allowed_at:
        return "another one was asked for"
    return _tie(option, chosen)


def _tie(option: TokenOption, chosen: TokenOption) -> str:
    """Both could go at the same instant: the first difference in the order of ties says why."""
    mine, first = _order(option), _order(chosen)
    if mine < first:
        return "another one was asked for"
    return next(why for why, here, there in zip(_TIES, mine, first, strict=True) if here != there)


def _order(option: TokenOption) -> tuple[float, bool, float, int]:
    return tie_order(
        last_success_at=option.last_success_at,
        is_default=option.is_default,
        expires_at=option.expires_at,
        pk=option.pk,
    )


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
