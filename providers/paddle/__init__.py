"""Paddle: its webhook dialect and its error codes; it is only watched (docs/providers/paddle.md)."""
