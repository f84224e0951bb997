"""What staff fill in before something happens."""

from datetime import UTC, datetime
from typing import Any

from django import forms

from recovery_site.console.story.types import TokenFacts

# An event's cause holds 200 characters, "staff: " included.
REASON_LENGTH = 180


class ReasonForm(forms.Form):
    """Why: kept in the invoice's history beside the person's name."""

    reason = forms.CharField(
        max_length=REASON_LENGTH,
        error_messages={
            "required": "Say why; the reason is kept in the invoice's history.",
            "max_length": f"Keep the reason below {REASON_LENGTH} characters.",
        },
    )


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
    def token_pk(self) -> int | None:
        return self._pks.get(self.cleaned_data["token"])
