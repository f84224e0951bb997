"""System checks: the networks' rules are read and held against the settings before anything runs."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from tokens.advice import load_advice
from tokens.networks import NETWORKS
from tokens.rules import DEFAULT_PATH, RuleError, load_rules


@register()
def network_rules_are_valid(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """A mistake in the rule file stops the start, not the first charge that it concerns."""
    try:
        book = load_rules()
        load_advice()
    except RuleError as error:
        return [
            Error(
                f"The networks' rules cannot be used: {error}",
                hint=f"Correct tokens/{DEFAULT_PATH.name}; docs/tokens.md describes it.",
                id="tokens.E001",
            )
        ]
    try:
        for network in NETWORKS:
            book.for_network(network, visa_limit=settings.VISA_RETRY_LIMIT)
    except RuleError as error:
        return [Error(str(error), hint="Set VISA_RETRY_LIMIT to 15 or 20.", id="tokens.E002")]
    return []
