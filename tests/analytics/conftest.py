"""A merchant whose clock is also the clock of every page, and people who log in."""

from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import User
from tests.console.world import World


@pytest.fixture
def world(db: None, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


@pytest.fixture
def as_user(client: Client) -> Callable[[User], Client]:
    def log_in(user: User) -> Client:
        client.force_login(user)
        return client

    return log_in
