"""Takes row locks away, to show what they are there for."""

import re
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper


def no_locks(monkeypatch: pytest.MonkeyPatch, table: str = "") -> None:
    """Every statement (or those that lock this table) reads as always, but holds nothing."""
    lock = re.compile(rf' FOR NO KEY UPDATE OF "{table}"' if table else r' FOR NO KEY UPDATE( OF "[a-z_]+")?')
    execute = CursorWrapper.execute

    def unlocked(self: CursorWrapper, sql: Any, params: Any = None) -> Any:
        return execute(self, lock.sub("", sql) if isinstance(sql, str) else sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", unlocked)
