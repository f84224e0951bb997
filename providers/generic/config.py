"""What a connection of home-grown billing is made of (docs/providers/generic.md)."""

from providers.guide import Guide

GUIDE = Guide(
    title="Generic",
    modes=("observe",),
    events=("payment.failed", "payment.succeeded", "payment.pending", "refund.updated", "dispute.updated"),
    where="Your own billing system: send the documented body to this address, signed by Standard Webhooks.",
    signed_with="A secret that both sides know, whsec_ and base 64.",
)
