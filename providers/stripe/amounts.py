"""Amounts as Stripe counts them, against ISO 4217 minor units.

Stripe differs from ISO in three currencies (its list of special cases): ISK and UGX have no decimals any
more but are still sent with two, so that 5 kr is 500; MGA is sent in whole ariary although ISO gives it two
decimals. Its partners take some three-decimal currencies in tens of minor units only: no 5.124 KWD.
"""

from providers.wire.units import Units

_UNITS = Units("Stripe", {"ISK": 2, "UGX": 2, "MGA": 0}, tens=frozenset({"BHD", "JOD", "KWD", "OMR", "TND"}))

from_stripe = _UNITS.inbound
to_stripe = _UNITS.outbound
