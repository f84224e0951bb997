import logging
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from accounts.models import Merchant
from tests.webhooks.door import Door, door_open

_numbers = count(1)
Lines = Callable[[], list[dict[str, Any]]]
NewDoor = Callable[..., Door]


@pytest.fixture
def new_door(db: None) -> NewDoor:
    """Further merchants, with settings of their connection: `new_door(mode="observe")`."""
    return lambda **config: door_open(Merchant.objects.create(name=f"Merchant {next(_numbers)}"), **config)


@pytest.fixture
def door(new_door: NewDoor) -> Door:
    return new_door()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Every log line so far, as its fields; lines that are no structured event have only `message`.

    Without the two lines by which the web server's middleware notes that a request came and went.
    """
    caplog.set_level(logging.INFO)

    def logged() -> list[dict[str, Any]]:
        found = [
            record.msg if isinstance(record.msg, dict) else {"message": record.getMessage()}
            for record in caplog.records
        ]
        return [line for line in found if line.get("event") not in ("request_started", "request_finished")]

    return logged
