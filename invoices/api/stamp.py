"""Who signs in the ledger for what the API does."""

from accounts.api.caller import Caller
from invoices.services.ledger import Stamp
from recovery_site.common import clock


def api_stamp(caller: Caller) -> Stamp:
    """The caller's signature, now."""
    return Stamp(actor=caller.actor, cause="api", now=clock.now())
