"""Hyperswitch: its webhook dialect, its API client and its error codes (docs/providers/hyperswitch.md)."""
