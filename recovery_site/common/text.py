"""Outside text on its way into a column."""


def storable(text: str) -> str:
    """`text` without what PostgreSQL's text cannot hold: NUL, and halves of characters."""
    return text.replace("\x00", "").encode("utf-8", "ignore").decode()
