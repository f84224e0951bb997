"""What every test shares: services of its own, no network, a Redis nobody else uses."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django import DjangoDbBlocker

from recovery_site.embedded.manager import remove_services
from tests.support.emptying import teardown
from tests.support.template import template_ensure

# Nothing asserts on wall-clock speed, so no example has a deadline; `make test-long` digs deeper.
hypothesis_settings.register_profile("default", deadline=None, max_examples=100)
hypothesis_settings.register_profile(
    "long", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("long" if os.environ.get("LONG") == "1" else "default")

_connect = socket.socket.connect


def _connect_locally(self: socket.socket, address: object) -> None:
    host = address[0] if isinstance(address, tuple) else "localhost"
    if host not in {"127.0.0.1", "::1", "localhost"}:
        raise RuntimeError(f"A test tried to reach {host}: tests never touch the network, use a local server.")
    _connect(self, address)  # type: ignore[arg-type]


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", _connect_locally)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, django_db_blocker: DjangoDbBlocker
) -> None:
    """Before pytest-django makes the test database, say what it is a copy of."""
    with django_db_blocker.unblock():
        connection.settings_dict["TEST"]["TEMPLATE"] = template_ensure()


@pytest.fixture(scope="session", autouse=True)
def _emptied_cheaply() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(TransactionTestCase, "_fixture_teardown", teardown)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def _redis_connection() -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5)
    assert client.connection_pool.connection_kwargs["db"] >= 1, "database 0 belongs to the application"
    yield client
    client.close()


@pytest.fixture
def redis_client(_redis_connection: redis.Redis) -> redis.Redis:
    """A raw client of this worker's own database, empty at the start of the test."""
    _redis_connection.flushdb()
    return _redis_connection


@pytest.fixture
def services_dir() -> Iterator[Path]:
    """A place for `ensure_services` to run a PostgreSQL and a Redis of the test's own, which it may kill."""
    with tempfile.TemporaryDirectory(prefix="recovery-test-") as parent:
        Path(parent).chmod(0o711)  # pytest's own directories are private, and root's servers are not root
        directory = Path(parent) / ".data"
        yield directory
        remove_services(directory)


@pytest.fixture
def process_environment(django_db_setup: None) -> dict[str, str]:
    """The environment of a process that shall work on this test's databases, such as a worker to be killed.

    What it reads must be committed: use it with `transactional_db`.
    """
    address = connection.settings_dict
    login = f"{quote(address['USER'], safe='')}:{quote(address['PASSWORD'], safe='')}"
    url = f"postgresql://{login}@{address['HOST']}:{address['PORT']}/{address['NAME']}"
    return {**os.environ, "ENVIRONMENT": "test", "DATABASE_URL": url, "REDIS_URL": settings.REDIS_URL}
