"""PostgreSQL and Redis for development and tests, run from Python wheels as daemons of this checkout.

Nothing has to be installed or running: the first process that needs them starts them under a file lock,
every later one finds their addresses in `.data/services.json`. Production never comes here; it names its own.
"""

from recovery_site.embedded.errors import EmbeddedServiceError
from recovery_site.embedded.manager import ServiceUrls, ensure_services, stop_services

__all__ = ["EmbeddedServiceError", "ServiceUrls", "ensure_services", "stop_services"]
