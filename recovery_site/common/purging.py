"""Old rows go, a batch at a time: no long transaction, no long lock, and the next purge goes on where one ended."""

from collections.abc import Callable

from django.db.models import Q, QuerySet

from recovery_site.common.db import ModelT

BATCH = 1000


def purge(old: QuerySet[ModelT], gone: Q, keep_going: Callable[[], bool]) -> int:
    """Delete the rows of `old` that match `gone`, by number from the first on; returns how many.

    `old` says by something that grows with the number how far to look: the walk ends at the first window in which
    nothing is old, instead of reading the whole table.
    """
    model = old.model
    deleted, after = 0, 0
    while keep_going():
        following = model._default_manager.filter(pk__gt=after).order_by("pk")
        window = list(following.values_list("pk", flat=True)[:BATCH])
        inside = old.filter(pk__in=window)
        if not window or not inside.exists():
            break
        _, counts = inside.filter(gone).delete()
        deleted += counts.get(model._meta.label, 0)
        after = window[-1]
    return deleted
