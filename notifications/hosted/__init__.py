"""The payer's pages behind the link of a message: no log-in, no cookie, four languages, every step without script."""
