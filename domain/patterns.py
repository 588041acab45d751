"""The patterns of identifiers, as regular expressions without anchors. No other file repeats one of them."""

#: An id that people choose and type. Always one token of a NATS subject.
SLUG = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
#: A UUID in its canonical lower-case form.
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: A SHA-256 in hexadecimal digits.
SHA256 = r"[0-9a-f]{64}"
#: One token of a NATS subject: the text between two dots.
TOKEN = r"[A-Za-z0-9_-]{1,128}"  # noqa: S105  (no secret)
