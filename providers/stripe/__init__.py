"""Stripe: its webhook dialect, its API client and its decline codes (docs/providers/stripe.md)."""
