"""A merchant with a key, and a client that speaks as its program does."""

from collections.abc import Callable

import pytest

from tests.api.door import Door
from tests.support.fixtures import new_shop as new_shop
from tests.support.fixtures import sandbox as sandbox
from tests.support.fixtures import shop as shop


@pytest.fixture
def door(db: None, redis_client: object) -> Door:
    """The API as one merchant's program sees it; nothing counted against its limit yet."""
    return Door()


@pytest.fixture
def other_door(door: Door) -> Callable[[], Door]:
    return Door
