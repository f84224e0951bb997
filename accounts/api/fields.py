"""What request bodies are made of: strict objects whose unknown fields are refused, amounts that are never floats."""

import re
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from recovery_site.common import money
from recovery_site.common.errors import InvalidInput

FLOAT_REFUSED = "send integer minor units or a decimal string"
_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def snake(name: str) -> str:
    """paymentIntentId -> payment_intent_id."""
    return _CAPITAL.sub(lambda found: "_" + found[1].lower(), name)


class StrictSerializer(serializers.Serializer):
    """Refuses unknown fields, so that a misspelt one is noticed. camelCase names are aliases of the snake_case ones.

    `null` counts as absent where a field allows leaving it out.
    """

    def to_internal_value(self, data):
        if not isinstance(data, Mapping):
            raise serializers.ValidationError("Give a JSON object.", code="invalid")
        known, errors = {}, {}
        for name, value in data.items():
            plain = name if name in self.fields else snake(name)
            if plain not in self.fields or self.fields[plain].read_only:
                errors[name] = ErrorDetail("There is no field of this name.", code="unknown_field")
            elif plain in known:
                errors[name] = ErrorDetail(f"This is {plain}, which is given twice.", code="given_twice")
            elif value is not None or self.fields[plain].required or self.fields[plain].allow_null:
                known[plain] = value
        if errors:
            raise serializers.ValidationError({name: [error] for name, error in errors.items()})
        return super().to_internal_value(known)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "integer", "minimum": 0, "maximum": money.MAX_AMOUNT_MINOR},
            {"type": "string", "pattern": r"^[0-9]{1,13}(\.[0-9]{1,4})?$"},
        ],
        "description": "Integer minor units (1999 is 19.99 USD and 1999 JPY) or a decimal string in major units.",
    }
)
class AmountField(serializers.Field):
    """Integer minor units, or a decimal string that needs the currency beside it: see `minor_units`."""

    default_error_messages = {
        "float_amount": f"A JSON float cannot hold money: {FLOAT_REFUSED}.",
        "invalid": f"This is not an amount: {FLOAT_REFUSED}.",
    }
    _DECIMAL = re.compile(r"[0-9]{1,13}(\.[0-9]{1,4})?", re.ASCII)

    def to_internal_value(self, data):
        if isinstance(data, float):
            self.fail("float_amount")
        if isinstance(data, str) and self._DECIMAL.fullmatch(data):
            return data
        if isinstance(data, bool) or not isinstance(data, int) or not 0 <= data <= money.MAX_AMOUNT_MINOR:
            self.fail("invalid")
        return data

    def to_representation(self, value):
        return value


class CurrencyField(serializers.CharField):
    """An ISO 4217 code, in any case."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_length=3, max_length=3, **kwargs)

    def to_internal_value(self, data):
        try:
            return money.currency_code(super().to_internal_value(data))
        except InvalidInput as error:
            raise serializers.ValidationError(error.message, code="currency_unknown") from error


def minor_units(value: int | str, currency: str, field: str = "amount") -> int:
    """The amount in minor units of `currency`; a ValidationError that names `field` if it has too many decimals."""
    try:
        return money.from_decimal_string(value, currency) if isinstance(value, str) else money.amount_minor(value)
    except InvalidInput as error:
        raise serializers.ValidationError({field: [ErrorDetail(error.message, code="invalid")]}) from error


class NameField(serializers.CharField):
    """Somebody else's id of something: 1 to 200 printable characters."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 200)
        super().__init__(**kwargs)

    def to_internal_value(self, data):
        text = super().to_internal_value(data)
        if not text.isprintable():
            raise serializers.ValidationError("Only printable characters can be part of an id.", code="invalid")
        return text
