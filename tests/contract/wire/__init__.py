"""Small imitations of the providers, one module each, on real sockets and in the providers' own formats."""
