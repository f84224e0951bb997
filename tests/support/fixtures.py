"""Fixtures of every test that drives the ledger; the packages' conftest files import them."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A real provider on a free port; tests keep apart by the names of their customers and tokens."""
    with sandbox_running(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def shop(sandbox: Sandbox, request: pytest.FixtureRequest) -> Shop:
    """A merchant of its own. Tests that charge need `transaction=True`: the drain works in threads."""
    _demand_database(request)
    return Shop(sandbox)


@pytest.fixture
def new_shop(sandbox: Sandbox, request: pytest.FixtureRequest) -> Callable[..., Shop]:
    """Further merchants, with settings of their connection: `new_shop(mode="observe")`."""
    _demand_database(request)
    return lambda **config: Shop(sandbox, config=config)


def _demand_database(request: pytest.FixtureRequest) -> None:
    """Only the mark makes pytest-django create a test database; a fixture alone would get the application's own."""
    marker = request.node.get_closest_marker("django_db")
    assert marker is not None, "Mark this test with pytest.mark.django_db: it uses a shop."
    request.getfixturevalue("transactional_db" if marker.kwargs.get("transaction") else "db")
