"""Adyen: its webhook dialect, its Checkout API client and its refusal reasons (docs/providers/adyen.md)."""
