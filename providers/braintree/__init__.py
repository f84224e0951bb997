"""Braintree: its webhook dialect, its API client and its response codes (docs/providers/braintree.md)."""
