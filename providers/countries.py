"""Countries as providers write them: two letters, three letters, or a name."""

import re
from functools import cache

from babel import Locale
from babel.core import get_global

_NOISE = re.compile(r"[^A-Z]+")
# Groups of countries, and codes for none.
_NO_COUNTRIES = {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}
# English names that differ from those that CLDR uses.
_OTHER_NAMES = {
    "UNITEDSTATESOFAMERICA": "US",
    "UNITEDKINGDOMOFGREATBRITAINANDNORTHERNIRELAND": "GB",
    "RUSSIANFEDERATION": "RU",
    "KOREAREPUBLIC": "KR",
    "VIETNAM": "VN",
    "CZECHREPUBLIC": "CZ",
    "TURKEY": "TR",
    "HONGKONG": "HK",
    "MACAO": "MO",
}


def country_code(text: str) -> str:
    """ISO 3166 alpha-2 of `DE`, `DEU`, `Germany` or `UNITEDSTATES`; an empty string for anything else."""
    name = _NOISE.sub("", text.upper())
    if len(name) == 2:
        return name if name in _codes().values() else ""
    return _codes().get(name, "")


@cache
def _codes() -> dict[str, str]:
    """Alpha-3 codes and English names, upper case without anything but letters, to alpha-2."""
    names = {str(code): str(name) for code, name in Locale("en").territories.items()}
    known = {code for code in names if len(code) == 2 and code.isalpha()} - _NO_COUNTRIES
    found = {_NOISE.sub("", names[code].upper()): code for code in known}
    for long, short in get_global("territory_aliases").items():
        if len(long) == 3 and long.isalpha() and short[0] in known:
            found[long] = short[0]
    return found | _OTHER_NAMES
