"""q2's own schedule as a second driver, for the case that the supervisor is gone and a cluster still runs."""

from django.conf import settings
from django_q.models import Schedule

# Minutes between the fallback's looks; each does nothing while a supervisor lives.
FALLBACK_MINUTES = 5
_FUNCTIONS = {
    "fallback: retries": "retries.tasks.drain_retries",
    "fallback: reconciliation": "retries.tasks.reconcile_sweep",
}


def schedules_ensure() -> None:
    """Create or correct the fallback schedules; repeating it changes nothing."""
    for name, function in _FUNCTIONS.items():
        if name == "fallback: reconciliation" and not settings.RECONCILE_WORKER_ENABLED:
            Schedule.objects.filter(name=name).delete()
            continue
        Schedule.objects.update_or_create(
            name=name,
            defaults={
                "func": function,
                "kwargs": "{'fallback': True}",
                "schedule_type": Schedule.MINUTES,
                "minutes": FALLBACK_MINUTES,
                "repeats": -1,
                "cluster": None,
            },
        )
