"""`python -m providers.sandbox.server --port N --ledger FILE`"""

import argparse
import sys

from providers.sandbox.server.ledger import LedgerError
from providers.sandbox.server.service import HOLD_SECONDS, KEY_TTL_SECONDS, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ledger", required=True, help="file that keeps charges, refunds, keys and settings")
    parser.add_argument("--key-ttl", type=float, default=KEY_TTL_SECONDS, help="seconds an Idempotency-Key is kept")
    parser.add_argument("--hold", type=float, default=HOLD_SECONDS, help="seconds a timeout step holds a request")
    options = parser.parse_args()
    try:
        serve(
            options.host,
            options.port,
            options.ledger,
            key_ttl_seconds=options.key_ttl,
            hold_seconds=options.hold,
        )
    except (LedgerError, OSError) as error:
        sys.stderr.write(f"The sandbox provider cannot run: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
