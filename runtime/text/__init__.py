"""Text of others, made fit to be shown: plain, without credentials, in words for people."""
