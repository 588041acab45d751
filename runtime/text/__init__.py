"""Text from outside, made safe to show: without control characters, without credentials, in words for people."""
