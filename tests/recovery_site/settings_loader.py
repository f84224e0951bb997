"""Loads the settings in a process of its own, under chosen variables and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

CHECKOUT = Path(__file__).resolve().parents[2]
# Addresses at which nothing listens: loading settings contacts nobody.
NOWHERE = {"DATABASE_URL": "postgresql://me:pw@127.0.0.1:9/db", "REDIS_URL": "redis://:pw@127.0.0.1:9/0"}
PRODUCTION = {
    **NOWHERE,
    "ENVIRONMENT": "production",
    "SECRET_KEY": "Dk3vB8sQ1xZ7mN5cR2wT9yU4iO6pA0hJ-lG_fE8dS3kW5qX1zV7bM2nC4",
    "FIELD_ENCRYPTION_KEYS": f"{Fernet.generate_key().decode()},{Fernet.generate_key().decode()}",
    "ALLOWED_HOSTS": "recovery.example.com,.example.org",
    "PUBLIC_URL": "https://recovery.example.com",
    "EMAIL_URL": "smtp+tls://user:p%40ss@mail.example.com",
    "DEFAULT_FROM_EMAIL": "Recovery <recovery@example.com>",
}
# Loads the settings once per line of standard input, a JSON object of variables; one process instead of seventy.
LOADER = """
import json, os, runpy, sys
from django.core.exceptions import ImproperlyConfigured
base = dict(os.environ)
for line in sys.stdin:
    os.environ.clear()
    os.environ.update(base | json.loads(line))
    try:
        values = runpy.run_path("recovery_site/settings.py")
        answer = {name: value for name, value in values.items() if name.isupper() and name[0] != "_"}
        del answer["LOGGING"]
    except ImproperlyConfigured as error:
        answer = {"refusal": str(error)}
    print(json.dumps(answer, default=str), flush=True)
"""


def environment_of(variables: dict[str, str]) -> dict[str, str]:
    """What a process sees: `variables`, and nothing else of the environment or of a developer's .env."""
    return {
        "PATH": os.defpath,
        "DJANGO_SETTINGS_MODULE": "recovery_site.settings",
        "PYTEST_VERSION": "here, so that .env is not read",
        "ENVIRONMENT": "development",
        **variables,
    }


def run(arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        env=environment_of(variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


class Loader:
    """A process that loads the settings afresh for every set of variables."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOADER],
            cwd=CHECKOUT,
            env=environment_of({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, variables: dict[str, str]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(variables) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def load(self, variables: dict[str, str]) -> dict[str, Any]:
        answer = self._ask(variables)
        assert "refusal" not in answer, answer
        return answer

    def refusal(self, variables: dict[str, str]) -> str:
        answer = self._ask(variables)
        assert answer.keys() == {"refusal"}
        return str(answer["refusal"])
