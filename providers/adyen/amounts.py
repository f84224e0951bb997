"""Amounts as Adyen counts them: its table of currencies leads where it differs from ISO 4217 (CLP, CVE, IDR, ISK)."""

from providers.wire.units import Units

_UNITS = Units("Adyen", {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2})

from_adyen = _UNITS.inbound
to_adyen = _UNITS.outbound
