"""What staff fill in before something happens."""

import re
from datetime import UTC, datetime
from typing import Any

from django import forms

from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import from_decimal_string
from recovery_site.common.scrubbing import scrub_text
from recovery_site.console.story.types import RefundableFacts, TokenFacts
from retries.services.bulk import BulkOrder
from retries.states import BulkAction, TokenRule

# An event's cause holds 200 characters, "staff: " included.
REASON_LENGTH = 180


class ReasonField(forms.CharField):
    """What a person writes into a history that nobody can change: card numbers and secrets are taken out, and then it
    must not be too long."""

    def to_python(self, value: Any) -> str:
        return scrub_text(super().to_python(value) or "")


class ReasonForm(forms.Form):
    """Why: kept in the invoice's history beside the person's name."""

    reason = ReasonField(
        max_length=REASON_LENGTH,
        error_messages={
            "required": "Say why; the reason is kept in the invoice's history.",
            "max_length": f"Keep the reason below {REASON_LENGTH} characters.",
        },
    )

    @property
    def chosen(self) -> dict[str, Any]:
        """What the valid form says, by the names of `actions.act`."""
        return {"reason": self.cleaned_data["reason"]}


class RetryForm(ReasonForm):
    """A manual retry: which payment method (the best one if none is chosen) and when (now if nothing is said; UTC)."""

    due_at = forms.DateTimeField(
        required=False, error_messages={"invalid": "Write the time like 2026-11-21 09:00 (UTC), or leave it empty."}
    )

    def __init__(self, data: Any, *, tokens: tuple[TokenFacts, ...], now: datetime) -> None:
        super().__init__(data)
        self._now = now
        self._pks = {token.public_id: token.pk for token in tokens}
        choices = [("", "The best one"), *((token.public_id, token.label) for token in tokens)]
        self.fields["token"] = forms.ChoiceField(
            choices=choices,
            required=False,
            error_messages={"invalid_choice": "Choose one of the customer's payment methods."},
        )

    def clean_due_at(self) -> datetime | None:
        """Read as UTC; a time in the past is a mistake worth telling."""
        due_at: datetime | None = self.cleaned_data["due_at"]
        if due_at is None:
            return None
        due_at = due_at.astimezone(UTC)
        if due_at < self._now:
            raise forms.ValidationError("This time is over; leave it empty to retry now.")
        return due_at

    @property
    def chosen(self) -> dict[str, Any]:
        token_pk = self._pks.get(self.cleaned_data["token"])
        return {**super().chosen, "token_pk": token_pk, "due_at": self.cleaned_data["due_at"]}


class BulkForm(forms.Form):
    """Why, and for a retry of many invoices with which payment method and when (now if nothing is said; UTC)."""

    token_rule = forms.ChoiceField(choices=TokenRule.choices, required=False)
    due_at = forms.DateTimeField(
        required=False, error_messages={"invalid": "Write the time like 2026-11-21 09:00 (UTC), or leave it empty."}
    )
    reason = ReasonField(max_length=REASON_LENGTH)

    def __init__(self, data: Any, *, action: str, now: datetime) -> None:
        super().__init__(data)
        self._now, self._action = now, action
        missing = f"Say why, in at most {REASON_LENGTH} characters; the reason is kept in the history."
        self.fields["reason"].error_messages |= {"required": missing, "max_length": missing}

    def clean_due_at(self) -> datetime | None:
        """Read as UTC; a time in the past is a mistake worth telling."""
        due_at: datetime | None = self.cleaned_data["due_at"]
        if due_at is not None and due_at < self._now:
            raise forms.ValidationError("This time is over; leave it empty to retry now.")
        return due_at

    @property
    def order(self) -> BulkOrder:
        """What is asked for; before the form is sent the plainest thing."""
        values = self.cleaned_data if self.is_bound and hasattr(self, "cleaned_data") else {}
        return BulkOrder(
            action=BulkAction(self._action),
            token_rule=TokenRule(values.get("token_rule") or TokenRule.BEST),
            due_at=values.get("due_at"),
        )


class RefundForm(ReasonForm):
    """A refund: of which payment (needed where there are several) and how much (all that is left if left empty)."""

    amount = forms.CharField(required=False, max_length=20)

    def __init__(self, data: Any, *, refundable: tuple[RefundableFacts, ...]) -> None:
        super().__init__(data)
        self._by_id = {charge.public_id: charge for charge in refundable}
        self.fields["charge"] = forms.ChoiceField(
            choices=[(charge.public_id, str(charge.left)) for charge in refundable],
            required=False,
            error_messages={"invalid_choice": "Choose one of the payments that can still be refunded."},
        )

    def clean(self) -> dict[str, Any]:
        """The amount in the payment's currency, at most what is left of it."""
        values: dict[str, Any] = super().clean() or self.cleaned_data
        charge = self._charge(values.get("charge", ""))
        if charge is None:
            self.add_error("charge", "Choose the payment to refund.")
            return values
        values["charge"], text = charge.public_id, values.get("amount", "").strip()
        try:
            amount = from_decimal_string(text, charge.left.currency) if text else charge.left.minor
        except InvalidInput as error:
            below = re.fullmatch(r"-[0-9.]+", text)
            self.add_error("amount", f"Enter an amount above zero, at most {charge.left}." if below else error.message)
            return values
        if not 0 < amount <= charge.left.minor:
            self.add_error("amount", f"Enter an amount above zero, at most {charge.left}.")
        values["amount_minor"] = amount
        return values

    def _charge(self, chosen: str) -> RefundableFacts | None:
        if chosen:
            return self._by_id.get(chosen)
        return next(iter(self._by_id.values())) if len(self._by_id) == 1 else None

    @property
    def chosen(self) -> dict[str, Any]:
        values = self.cleaned_data
        return {**super().chosen, "charge": values["charge"], "amount_minor": values["amount_minor"]}
