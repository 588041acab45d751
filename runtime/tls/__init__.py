"""TLS: the platform's own authority, the certificates of its servers, and clients that pin an authority."""
