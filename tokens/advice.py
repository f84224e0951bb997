"""What a network's answer to one attempt demands for the card: stop, wait, or nothing.

The codes stand in `network_rules.toml` with their sources (Mastercard merchant advice codes, Visa category
1).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tokens.networks import normalise_network
from tokens.rules import DEFAULT_PATH, RuleError, field, networks_of, read_document

_CODE = re.compile(r"[0-9A-Za-z]+", re.ASCII)
_FIELDS = frozenset({"networks", "network_codes", "advice_codes", "effect", "lasting", "hours", "source"})


@dataclass(frozen=True, slots=True)
class AdviceEffect:
    """`stop`: the card is not charged again. `wait`: not before that long after the answer. `revivable`: a
    new expiry date or an updated card lifts the stop. `source`: where the demand comes from, empty if there
    is none."""

    stop: bool
    wait: timedelta | None
    revivable: bool
    source: str


NO_EFFECT = AdviceEffect(stop=False, wait=None, revivable=True, source="")


@dataclass(frozen=True, slots=True)
class AdviceBook:
    """Effects by (network, code): `by_network_code` for response codes, `by_advice_code` for advice codes."""

    by_network_code: Mapping[tuple[str, str], AdviceEffect]
    by_advice_code: Mapping[tuple[str, str], AdviceEffect]

    def effect(self, network: str, network_code: str | None, advice_code: str | None) -> AdviceEffect:
        """The strictest of what the two codes demand: a lasting stop, then a stop, then the longer wait."""
        name = normalise_network(network)
        found = (
            self.by_advice_code.get((name, code_of(advice_code))),
            self.by_network_code.get((name, code_of(network_code))),
        )
        return max((effect for effect in found if effect is not None), key=_strictness, default=NO_EFFECT)


def advice_effect(network: str, network_code: str | None, advice_code: str | None) -> AdviceEffect:
    """What the shipped advice says. Codes may come as `3`, `03` or `03 : Do not try again`. Never raises."""
    return load_advice().effect(network, network_code, advice_code)


def code_of(text: str | None) -> str:
    """The code at the start of a provider's text, upper case, a single digit padded to two; empty if there is
    none."""
    match = _CODE.match((text or "").strip())
    code = match[0].upper() if match else ""
    return code.zfill(2) if len(code) == 1 and code.isdigit() else code


@cache
def load_advice(path: Path = DEFAULT_PATH) -> AdviceBook:
    """Read and check the advice of a rule file once. Raises RuleError with the place of the first mistake."""
    by_network_code: dict[tuple[str, str], AdviceEffect] = {}
    by_advice_code: dict[tuple[str, str], AdviceEffect] = {}
    for index, row in enumerate(read_document(path)["advice"]):
        where = f"advice {index + 1}"
        effect = _parse_effect(row, where)
        if ("network_codes" in row) == ("advice_codes" in row):
            raise RuleError(f"{where}: give either network_codes or advice_codes.")
        name, target = (
            ("network_codes", by_network_code) if "network_codes" in row else ("advice_codes", by_advice_code)
        )
        for network in networks_of(row, where):
            for code in field(row, name, list, where):
                if not isinstance(code, str) or code_of(code) != code:
                    raise RuleError(f"{where}: {name} holds {code!r}; write codes such as 03 or R1 as text.")
                if (network, code) in target:
                    raise RuleError(f"{where}: {code} of {network} is listed twice.")
                target[network, code] = effect
    return AdviceBook(by_network_code, by_advice_code)


def _parse_effect(row: Mapping[str, Any], where: str) -> AdviceEffect:
    if unknown := row.keys() - _FIELDS:
        raise RuleError(f"{where}: unknown field {min(unknown)!r}; use {', '.join(sorted(_FIELDS))}.")
    source = field(row, "source", str, where)
    match row.get("effect"):
        case "stop":
            lasting = field(row, "lasting", bool, where)
            return AdviceEffect(stop=True, wait=None, revivable=not lasting, source=source)
        case "wait":
            wait = timedelta(hours=field(row, "hours", int, where))
            if wait <= timedelta():
                raise RuleError(f"{where}: hours must be at least 1.")
            return AdviceEffect(stop=False, wait=wait, revivable=True, source=source)
        case effect:
            raise RuleError(f"{where}: effect is {effect!r}; use stop or wait.")


def _strictness(effect: AdviceEffect) -> tuple[bool, bool, timedelta]:
    return effect.stop, not effect.revivable, effect.wait or timedelta()
