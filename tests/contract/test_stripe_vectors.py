"""Stripe signatures against collected vectors, read in place where they lie beside the checkout."""

import json
from pathlib import Path
from typing import Any

import pytest
import stripe

from providers.base import InboundRequest, SignatureInvalid
from providers.stripe.dialect import StripeDialect

VECTORS = Path(__file__).parents[2].parent / "shared" / "samples" / "vectors.json"


def _vectors() -> list[dict[str, Any]]:
    if not VECTORS.exists():
        return []
    return [vector for vector in json.loads(VECTORS.read_bytes()) if vector["provider"] == "stripe"]


ALL = _vectors()
SIGNED = [vector for vector in ALL if vector["scheme"].startswith("stripe-v1")]
PRIMITIVE = [vector for vector in ALL if vector["scheme"].startswith("primitive")]

pytestmark = pytest.mark.skipif(not ALL, reason="the collected signature vectors are not beside this checkout")


@pytest.mark.parametrize("vector", SIGNED, ids=[vector["id"] for vector in SIGNED])
def test_a_careful_receiver_decides_as_the_vector_says(vector: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    request = InboundRequest(vector["payload"].encode(), headers)

    def verify() -> None:
        StripeDialect().verify(request, [vector["secret"]], now=vector["now"], tolerance_seconds=300)

    if vector["strict_valid"]:
        verify()
    else:
        with pytest.raises(SignatureInvalid):
            verify()


@pytest.mark.parametrize("vector", PRIMITIVE, ids=[vector["id"] for vector in PRIMITIVE])
def test_the_sdk_computes_the_published_digest(vector: dict[str, Any]) -> None:
    digest = stripe.WebhookSignature._compute_signature(vector["payload"], vector["secret"])
    assert digest == vector["headers"]["hmac-hex"]


def test_both_sorts_of_vectors_were_found() -> None:
    assert len(SIGNED) + len(PRIMITIVE) == len(ALL)
    assert any(vector["strict_valid"] for vector in SIGNED)
    assert not all(vector["strict_valid"] for vector in SIGNED)
