"""Self-hosted revenue recovery: retries failed recurring payments at the right time, on the right card."""

__version__ = "0.1.0"
