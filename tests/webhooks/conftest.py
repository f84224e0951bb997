from collections.abc import Iterator
from itertools import count

import pytest

from accounts.models import Merchant
from tests.webhooks.door import Door, door_open

_numbers = count(1)


@pytest.fixture
def door(db: None) -> Iterator[Door]:
    return door_open(Merchant.objects.create(name=f"Merchant {next(_numbers)}"))
