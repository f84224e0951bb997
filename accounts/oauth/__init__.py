"""OAuth 2: applications of a merchant, tokens for themselves or for people who consent (docs/adr)."""
