"""Countries in all the ways in which providers write them."""

import pytest

from providers.countries import country_code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("US", "US"),
        ("us", "US"),
        ("USA", "US"),
        ("UNITEDSTATES", "US"),
        ("UnitedStatesOfAmerica", "US"),
        ("Germany", "DE"),
        ("DEU", "DE"),
        ("NETHERLANDS", "NL"),
        ("GBR", "GB"),
        ("Unknown", ""),
        ("XX", ""),
        ("EU", ""),
        ("", ""),
    ],
)
def test_a_country_is_two_letters(text: str, code: str) -> None:
    assert country_code(text) == code
