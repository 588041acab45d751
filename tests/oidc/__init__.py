"""A real OIDC server for the tests, and tokens that are signed with its keys."""
