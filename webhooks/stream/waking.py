"""The word that wakes the stream's processes: which merchant has something new to tell."""

from django.db import connection as database

CHANNEL = "recovery_stream"


def stream_wake(merchant_pk: int) -> None:
    """Tell every listening process. Nothing depends on its arrival: they also look by themselves, only later."""
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, str(merchant_pk)])
