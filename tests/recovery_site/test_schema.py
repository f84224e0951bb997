"""The database holds what the models say it does."""

import pytest
from django.apps import apps
from django.db import connection

pytestmark = pytest.mark.django_db


def test_every_index_and_constraint_of_the_models_stands_in_the_database() -> None:
    """A migration that drops the index of a column can take a unique one of the same column with it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'i' UNION SELECT conname FROM pg_constraint")
        there = {name for (name,) in cursor.fetchall()}
    named = {
        f"{model._meta.label}: {one.name}"
        for model in apps.get_models()
        for one in (*model._meta.indexes, *model._meta.constraints)
    }
    assert len(named) > 100
    assert not {name for name in named if name.partition(": ")[2] not in there}
