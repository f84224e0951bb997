"""Bodies become plain values or are refused; no parser trick gets through."""

import pytest

from providers.base import BodyMalformed
from providers.bodies import json_object, key_of, xml_object
from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import from_decimal_string

BOMB = b"""<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>"""
FILE = b"""<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/hostname">]><a>&f;</a>"""


def test_xml_becomes_texts_lists_and_nothing() -> None:
    body = b"""<?xml version="1.0" encoding="UTF-8"?>
        <note><id>7</id><gone nil="true"/><empty/><list type="array"><item>a</item><item><b>1</b></item></list>
        <twice>1</twice><twice>2</twice><deep><er>x</er></deep></note>"""
    assert xml_object(body, "Somebody") == (
        "note",
        {
            "id": "7",
            "gone": None,
            "empty": "",
            "list": ["a", {"b": "1"}],
            "twice": ["1", "2"],
            "deep": {"er": "x"},
        },
    )


def test_xml_speaks_the_encoding_it_declares() -> None:
    assert xml_object('<?xml version="1.0" encoding="ISO-8859-1"?><a><b>é</b></a>'.encode("latin-1"), "S")[1] == {
        "b": "é"
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BOMB, "document type"),
        (FILE, "document type"),
        (b"<!DOCTYPE a SYSTEM 'http://127.0.0.1:1/x.dtd'><a><b>1</b></a>", "document type"),
        (b"", "not XML"),
        (b"<a>", "not XML"),
        (b"{}", "not XML"),
        (b'<?xml version="1.0" encoding="utf-99"?><a>1</a>', "not XML"),
        (b"<a><b>\x00</b></a>", "not XML"),
        (b"<a><b>\xff</b></a>", "not XML"),
        (b"<a>text</a>", "holds nothing"),
        (b"<a/>", "holds nothing"),
        (b"<a>" * 2_000 + b"</a>" * 2_000, "nested deeper"),
    ],
)
def test_xml_that_is_none_or_a_trick_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(BodyMalformed, match=reason):
        xml_object(body, "Somebody")


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'{"a": NaN}', b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5_000])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BodyMalformed):
        json_object(body, "Somebody")


@pytest.mark.parametrize(
    ("value", "key"),
    [("in_1", "in_1"), ({"id": "in_1"}, "in_1"), (7, "7"), (True, ""), (-1, ""), (10**30, ""), ("", ""), ("a\n", "")],
)
def test_only_what_can_be_an_id_orders_events(value: object, key: str) -> None:
    assert key_of(value) == key


@pytest.mark.parametrize("text", ["1e999999", "1e-999999", "1E+40", "NaN", "Infinity", "-0.001"])
def test_absurd_decimals_are_refused_without_writing_them_out(text: str) -> None:
    with pytest.raises(InvalidInput):
        from_decimal_string(text, "USD")
