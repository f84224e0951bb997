"""Takes row locks away, to show what they are there for."""

import re
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper

# What the database's function gives, without its locks.
_CARDS = """tokens_card WHERE budget_group IN (
    SELECT card.budget_group FROM tokens_card card LEFT JOIN tokens_token token ON token.card_id = card.id
    WHERE token.customer_id = ANY(%s::bigint[]) OR card.id = ANY(%s::bigint[])
) ORDER BY id"""


def no_locks(monkeypatch: pytest.MonkeyPatch, table: str = "") -> None:
    """Every statement (or those that lock this table) reads as always, but holds nothing."""
    lock = re.compile(
        rf' FOR NO KEY UPDATE OF "{table}"' if table else r' FOR NO KEY UPDATE( OF "[a-z_]+"(, "[a-z_]+")*)?'
    )
    execute = CursorWrapper.execute

    def unlocked(self: CursorWrapper, sql: Any, params: Any = None) -> Any:
        if isinstance(sql, str):
            sql = lock.sub("", sql)
            if table in ("", "tokens_card"):
                sql = sql.replace("tokens_cards_lock(%s, %s)", _CARDS)
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", unlocked)
