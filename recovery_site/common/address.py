"""Says what a page's address asks for in vain, so that nobody reads the answer to another question."""

from collections.abc import Iterator

from django.contrib import messages
from django.http import HttpRequest

# Read before any page, by accounts.current.
_OF_EVERY_PAGE = "merchant"
_MOST = 5


def address_check(request: HttpRequest, **used: object) -> None:
    """Warn on the page of every parameter that it does not know and every value that it does not use.

    `used`: what the page made of each parameter that it knows; None and "" are nothing.
    """
    texts = {name: "" if value is None else str(value) for name, value in used.items()}
    for number, text in enumerate(_unused(request, texts)):
        if number < _MOST:
            messages.warning(request, text)


def _unused(request: HttpRequest, used: dict[str, str]) -> Iterator[str]:
    for name, values in request.GET.lists():
        for value in values:
            if name == _OF_EVERY_PAGE or not value.strip() or value.strip() == used.get(name):
                continue
            told = f"“{_cut(name)}={_cut(value)}” in the address"
            if name not in used:
                yield f"{told} is no filter of this page and was left out."
            elif used[name]:
                yield f"{told} has no meaning here: “{_cut(used[name])}” is used instead."
            else:
                yield f"{told} has no meaning here and was left out."


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
