"""Install a lock file, hashes checked: by uv, which the lock file names too, or by pip where uv cannot.

    python requirements/install.py requirements/dev.lock

uv takes a third of pip's time. It knows nothing of pip's configuration, so what that says about where packages come
from is handed on; whatever else it says is for pip alone. Runs in the new environment, before anything else is there.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path

# What uv understands of pip's configuration. Everything that can carry a password goes by environment, which no other
# user can read. uv separates several values by spaces.
_ENVIRONMENT = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
# What changes nothing about what is installed.
_HARMLESS = {"disable-pip-version-check", "root-user-action", "no-input", "quiet", "progress-bar", "no-color"}
_PIP = (sys.executable, "-m", "pip")


def main(lock: Path) -> int:
    options = pip_options(_output([*_PIP, "config", "list"]))
    plan = uv_plan(options, pinned_names(lock.read_text(encoding="utf-8")))
    if plan is not None and _by_uv(lock, *plan):
        return 0
    sys.stderr.write("pip installs the packages, since uv cannot; that takes a little longer.\n")
    return _by_pip(lock)


def pip_options(listing: str) -> dict[str, str]:
    """What `pip install` goes by, from the output of `pip config list`: files first, then PIP_... variables."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in found:
            found[section][key.replace("_", "-")] = str(ast.literal_eval(value))
    return {key: value for section in found.values() for key, value in section.items()}


def pinned_names(requirements: str) -> set[str]:
    """The packages that a lock or constraints file names, written in one way."""
    return {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^[A-Za-z0-9][\w.-]*", requirements, re.M)}


def uv_plan(options: Mapping[str, str], locked: Set[str]) -> tuple[list[str], dict[str, str]] | None:
    """The arguments and variables that tell uv the same; None if something is said that uv has no word for.

    uv takes no constraints beside hashes. Those on packages that the lock does not name say nothing here.
    """
    arguments, environment = [], {}
    for name, value in options.items():
        if name in _ENVIRONMENT:
            environment[_ENVIRONMENT[name]] = " ".join(value.split())
        elif name == "find-links":
            for place in value.split():
                arguments += ["--find-links", place]
        elif name == "no-index":
            arguments += ["--no-index"] if value.lower() in ("1", "true", "yes", "on") else []
        elif name == "constraint":
            if not all(Path(place).is_file() and not locked & _names(Path(place)) for place in value.split()):
                return None
        elif name not in _HARMLESS:
            return None
    return arguments, environment


def _names(constraints: Path) -> set[str]:
    return pinned_names(constraints.read_text(encoding="utf-8"))


def uv_lines(lock: str) -> str:
    """The part of a lock file that pins uv; empty if it is not in it."""
    kept, ours = [], False
    for line in lock.splitlines():
        ours = line.startswith("uv==") if line[:1].isalnum() else ours
        if ours:
            kept.append(line + "\n")
    return "".join(kept)


def _by_uv(lock: Path, arguments: list[str], environment: Mapping[str, str]) -> bool:
    pinned = uv_lines(lock.read_text(encoding="utf-8"))
    if not pinned:
        return False
    with tempfile.TemporaryDirectory() as directory:
        alone = Path(directory) / "uv.lock"
        alone.write_text(pinned, encoding="utf-8")
        if _by_pip(alone) != 0:
            return False
    # As pip does: every index is asked. The hashes keep a stranger's package of the same name out.
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    command += ["--index-strategy", "unsafe-best-match", "--require-hashes", *arguments, "-r", str(lock)]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode == 0


def _by_pip(lock: Path) -> int:
    command = [*_PIP, "install", "--quiet", "--no-input", "--require-hashes", "-r", str(lock)]
    return subprocess.run(command, check=False).returncode


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
