"""What merchants set: how their messages look, and their own texts."""

from collections.abc import Mapping
from typing import Any

import structlog
from django.db import transaction
from django.db.models.functions import Now

from accounts.models import Merchant
from notifications.catalogue import language_of
from notifications.models import MessageSettings, MessageTemplate
from notifications.rendering import problems_in
from recovery_site.common.errors import InvalidInput

log = structlog.get_logger()


@transaction.atomic
def message_settings_set(*, merchant: Merchant, values: Mapping[str, Any], actor: str) -> MessageSettings:
    """Create or change the merchant's settings; only what is named changes. Raises InvalidInput."""
    if not language_of(values.get("default_locale", "en")):
        raise InvalidInput("The default language must be one that is shipped: en, de, fr or es.")
    row, _ = MessageSettings.objects.update_or_create(merchant=merchant, defaults={**values, "changed_by": actor[:100]})
    log.info("message_settings_set", merchant=merchant.public_id, changed=sorted(values), actor=actor)
    return row


def template_problems(*, subject: str, body: str, button: str) -> dict[str, list[str]]:
    """What is wrong with a text, by field; empty if it can be used."""
    found = {name: problems_in(text) for name, text in (("subject", subject), ("body", body), ("button", button))}
    return {name: problems for name, problems in found.items() if problems}


@transaction.atomic
def message_template_set(
    *,
    merchant: Merchant,
    name: str,
    locale: str,
    segment: str,
    category: str,
    subject: str,
    body: str,
    button: str,
    enabled: bool,
    actor: str,
) -> MessageTemplate:
    """Create or change the merchant's text for that message, language, segment and category; it holds for messages
    decided from now on. Raises InvalidInput for a text that could not be filled."""
    problems = template_problems(subject=subject, body=body, button=button)
    if problems:
        raise InvalidInput(next(iter(problems.values()))[0])
    row, _ = MessageTemplate.objects.update_or_create(
        merchant=merchant,
        name=name,
        locale=locale,
        segment=segment,
        category=category,
        defaults={
            "subject": subject,
            "body": body,
            "button": button,
            "enabled": enabled,
            "changed_by": actor[:100],
            "changed_at": Now(),
        },
    )
    log.info("message_template_set", merchant=merchant.public_id, template=name, locale=locale, actor=actor)
    return row
