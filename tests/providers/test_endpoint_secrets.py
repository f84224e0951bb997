"""Passwords of endpoints: how they are written, and that only the right one opens."""

import base64

import pytest

from providers.base import InboundRequest, SignatureInvalid
from providers.endpoint_secrets import Login, demand_login, login_given, login_of
from recovery_site.common.errors import InvalidInput


def request(authorization: str) -> InboundRequest:
    return InboundRequest(b"{}", {"authorization": authorization})


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("secret", "login"),
    [
        ("user:pass", Login("user", "pass")),
        ("user:pa:ss", Login("user", "pa:ss")),
        ("user:", Login("user", "")),
        ("only_a_user", Login("only_a_user", "")),
        ('{"username": "user", "password": "pass"}', Login("user", "pass")),
        ('{"user": "user", "password": "pass"}', Login("user", "pass")),
    ],
)
def test_a_login_is_written_in_one_text(secret: str, login: Login) -> None:
    assert login_of(secret) == login


@pytest.mark.parametrize(
    "secret", [":pass", "{", "{}", '{"password": "x"}', '{"username": 1}', '{"username": "u", "x": "y"}']
)
def test_what_is_no_login_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        login_of(secret)
    assert "pass" not in raised.value.message.replace("password", "")


def test_only_the_right_user_and_password_open() -> None:
    logins = [Login("new", "päss:wörd"), Login("old", "before")]
    demand_login(request(basic("new:päss:wörd")), logins)
    demand_login(request("basic  " + basic("old:before")[6:] + " "), logins)
    for wrong in (
        "",
        "Basic",
        "Basic !!!",
        "Bearer x",
        basic("newpass"),
        basic("new:before"),
        basic("old:päss:wörd"),
        "é",
    ):
        with pytest.raises(SignatureInvalid):
            demand_login(request(wrong), logins)
    with pytest.raises(SignatureInvalid):
        demand_login(InboundRequest(b"", {}), logins)
    with pytest.raises(SignatureInvalid):
        demand_login(request(basic("new:päss:wörd")), [])


def test_what_is_not_utf_8_is_no_login() -> None:
    assert login_given(request("Basic " + base64.b64encode(b"\xff:\xff").decode())) is None
