"""The API's front door: requests as a program sends them, answers as it reads them."""

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from django.test import Client

from accounts.models import ApiKey, Merchant
from accounts.services import api_key_create, merchant_create

_serial = count(1)
V1 = "/api/v1"


@dataclass
class Door:
    """A merchant's program with a key of its own. `path` is what follows /api/v1."""

    merchant: Merchant = field(default_factory=lambda: merchant_create(name=f"Door {next(_serial)}").merchant)
    scopes: tuple[str, ...] = ("read", "payments", "refunds", "settings")
    key: str = field(init=False)
    row: ApiKey = field(init=False)
    client: Client = field(default_factory=Client)

    def __post_init__(self) -> None:
        new = api_key_create(merchant=self.merchant, name="test", scopes=self.scopes)
        self.key, self.row = new.text, new.row

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return self._told(self.send("GET", path, query=query), status)

    def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        return self._told(self.send("POST", path, body, **headers), status)

    def patch(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        return self._told(self.send("PATCH", path, body, **headers), status)

    def delete(self, path: str, status: int = 200, **headers: str) -> Any:
        return self._told(self.send("DELETE", path, **headers), status)

    def send(self, method: str, path: str, body: Any = None, query: Any = None, **headers: str) -> Any:
        """The raw answer. Header names as Python words: `idempotency_key="k"`."""
        known = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.generic(
            method,
            f"{V1}{path}" if path.startswith("/") else path,
            data=self._body(body),
            content_type="application/json",
            query_params=query,
            headers={"Authorization": f"Bearer {self.key}", **known},
        )

    def _body(self, body: Any) -> bytes:
        if body is None:
            return b""
        return body if isinstance(body, bytes) else json.dumps(body).encode()

    def _told(self, answer: Any, status: int) -> Any:
        assert answer.status_code == status, answer.content
        return answer.json() if answer.content else None
