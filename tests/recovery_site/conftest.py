"""Fixtures of the settings and of the embedded services."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recovery_site.settings_loader import NOWHERE, PRODUCTION, Loader


@pytest.fixture
def data_dir(services_dir: Path) -> Path:
    return services_dir


@pytest.fixture(scope="session")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.process.communicate(timeout=30)


@pytest.fixture(scope="session")
def production(loader: Loader) -> dict[str, Any]:
    return loader.load(PRODUCTION)


@pytest.fixture(scope="session")
def development(loader: Loader) -> dict[str, Any]:
    return loader.load(NOWHERE)
