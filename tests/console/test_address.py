"""A parameter that a list or a report cannot use is said on the page, with what is used instead."""

import re
from collections.abc import Callable
from html import unescape
from urllib.parse import quote

import pytest
from django.test import Client

from accounts.models import User
from retries.models import Case
from tests.console.world import World

LogIn = Callable[[User], Client]
BEFORE = "“before=x” in the address has no meaning here and was left out."


def told(client: Client, path: str) -> list[str]:
    page = client.get(path).content.decode()
    return [
        unescape(text) for text in re.findall(r'<p class="banner" data-tone="warning" role="status">(.*?)</p>', page)
    ]


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("/dashboard/?days=5", ["“days=5” in the address has no meaning here: “30” is used instead."]),
        ("/dashboard/?day=7", ["“day=7” in the address is no filter of this page and was left out."]),
        (
            "/dashboard/reports/failures/?days=365&connection=con_other",
            [
                "“days=365” in the address has no meaning here: “30” is used instead.",
                "“connection=con_other” in the address has no meaning here and was left out.",
            ],
        ),
        (
            "/dashboard/invoices/?status=HACKED&case=OPEN&policy=x&before=x",
            [
                "“status=HACKED” in the address has no meaning here and was left out.",
                "“policy=x” in the address has no meaning here and was left out.",
                BEFORE,
            ],
        ),
        (
            "/dashboard/invoices/?case=LOST&case=OPEN",
            ["“case=LOST” in the address has no meaning here: “OPEN” is used instead."],
        ),
        (
            "/dashboard/alerts/?show=mine&before=x",
            ["“show=mine” in the address has no meaning here: “unread” is used instead.", BEFORE],
        ),
        ("/dashboard/incidents/?before=x", [BEFORE]),
        (
            "/dashboard/messages/?days=7&status=LOST&before=x",
            ["“status=LOST” in the address has no meaning here and was left out.", BEFORE],
        ),
        (
            "/console/work/?queue=other&after=x",
            [
                "“queue=other” in the address has no meaning here: “customer” is used instead.",
                "“after=x” in the address has no meaning here and was left out.",
            ],
        ),
        (
            "/console/queue/?show=his&kind=x&after=x",
            [
                "“show=his” in the address has no meaning here: “open” is used instead.",
                "“kind=x” in the address has no meaning here and was left out.",
                "“after=x” in the address has no meaning here and was left out.",
            ],
        ),
    ],
)
def test_what_a_page_cannot_use_is_said(world: World, log_in: LogIn, path: str, texts: list[str]) -> None:
    client = log_in(world.person())
    assert told(client, path) == texts
    assert told(client, "/dashboard/") == [], "said once, on the page that it is about"


def test_what_a_page_uses_is_not_remarked_upon(world: World, log_in: LogIn) -> None:
    world.fail()
    client, merchant = log_in(world.person()), world.merchant.public_id
    policy = Case.objects.values_list("policy_version__version", flat=True).get()
    for path in (
        f"/dashboard/?days=7&merchant={merchant}",
        f"/dashboard/reports/retries/?days=90&connection={world.connection.public_id}",
        f"/dashboard/invoices/?q=+a+&status=&case=OPEN&failed=7&code=x&policy={policy}&before=99",
        "/dashboard/alerts/?show=all&before=5",
        "/dashboard/alerts/?show=unread",
        "/dashboard/incidents/?before=5",
        "/dashboard/messages/?days=30&status=SENT&before=5",
        "/console/work/?queue=customer&after=5",
        f"/console/queue/?show=open&kind=&after={quote('2026-11-20T12:00:00+00:00~5')}",
    ):
        assert told(client, path) == [], path


def test_a_senseless_address_is_told_in_few_words_and_escaped(world: World, log_in: LogIn) -> None:
    client = log_in(world.person())
    many = "&".join(f"x{number}=1" for number in range(50))
    assert len(told(client, f"/dashboard/invoices/?{many}")) == 5
    (text,) = told(client, f"/dashboard/invoices/?status=<script>{'x' * 500}")
    assert text == f"“status=<script>{'x' * 52}…” in the address has no meaning here and was left out."
    assert "<script>x" not in client.get("/dashboard/invoices/?status=<script>x").content.decode()
