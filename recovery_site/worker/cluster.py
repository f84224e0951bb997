"""One q2 cluster as a process: `python -m recovery_site.worker.cluster`, named by Q_CLUSTER_NAME.

Does what `manage.py qcluster` does, and three things more: it tells running tasks to begin nothing new when it is asked
to stop, its processes die with their parents instead of working on unsupervised, and it ends with an error when its
guard did.
"""

import os
import signal
import sys
from typing import Any

import django


def main() -> int:
    """Run until SIGTERM; 0 if the cluster was asked to stop, 1 if its guard process ended by itself."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recovery_site.settings")
    django.setup()
    from django_q.cluster import Cluster

    from recovery_site.common.stopping import stop_request
    from recovery_site.worker.lineage import die_with_parent

    class WorkerCluster(Cluster):
        def stop(self) -> bool:
            stop_request()
            stopped: bool = super().stop()
            return stopped

    os.register_at_fork(after_in_child=die_with_parent(signal.SIGKILL))
    cluster = WorkerCluster()
    cluster.start()
    guard: Any = cluster.sentinel
    guard.join()
    return 0 if guard.exitcode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
