"""`python -m recovery_site.embedded start|stop|remove`: what the Makefile calls, without loading Django."""

import sys
from pathlib import Path

from recovery_site.embedded.errors import EmbeddedServiceError
from recovery_site.embedded.manager import ensure_services, remove_services, stop_services

DATA_DIR = Path(__file__).resolve().parent.parent.parent / ".data"


def main(arguments: list[str]) -> int:
    """Returns the exit status; problems are told in one line on stderr."""
    action = arguments[0] if len(arguments) == 1 else ""
    try:
        if action == "start":
            ensure_services(DATA_DIR)
            message = "The embedded services run."
        elif action == "stop":
            stopped = stop_services(DATA_DIR)
            message = f"The embedded services {'are stopped' if stopped else 'did not run'}."
        elif action == "remove":
            remove_services(DATA_DIR)
            message = "The embedded services and their data are gone."
        else:
            print("Say one of: start, stop, remove.", file=sys.stderr)
            return 2
    except EmbeddedServiceError as error:
        print(error, file=sys.stderr)
        return 1
    print(message)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
