"""Stored reasons name rules, cards and tables as the engine does; people read the words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recovery_site.console.words import card_label, rule_words
from tokens.models import Token
from tokens.rules import Rule, RuleOverride
from tokens.selectors import network_rules

# " (simulator table, own API codes; code insufficient_funds)": on whose word a decline was classified. The attempt
# shows it; a sentence about what happens next does not need it.
_SOURCE = re.compile(r" \([^()]*; code [^()]*\)")


@dataclass(frozen=True, slots=True)
class Glossary:
    """`words`: technical text to what people say; `rules`: every rule of the customer's networks."""

    words: Mapping[str, str]
    rules: tuple[Rule, ...]

    def say(self, text: str) -> str:
        """The text in people's words."""
        for technical, plain in self.words.items():
            text = text.replace(technical, plain)
        return text

    def brief(self, text: str) -> str:
        """The same without the sources of classifications."""
        return _SOURCE.sub("", self.say(text))

    def rule(self, text: str) -> Rule | None:
        """The rule whose technical name is exactly `text`."""
        return next((rule for rule in self.rules if str(rule) == text), None)


def glossary_of(tokens: Iterable[Token], limits: Sequence[RuleOverride]) -> Glossary:
    """Words for the cards and the rules that reasons about these tokens can name, `limits` of the merchant included."""
    cards = {token.card for token in tokens}
    rules = tuple(
        rule for network in sorted({card.network for card in cards}) for rule in network_rules(network, limits)
    )
    words = {str(rule): rule_words(rule) for rule in rules}
    words |= {str(card): card_label(card.network, card.last4) for card in cards if card.last4}
    return Glossary(words=words, rules=rules)
