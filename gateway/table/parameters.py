"""The names of query parameters that many reads take."""

FRESH = ("min_position",)
#: Of reads that can tell how it was.
PAST = ("at", *FRESH)
PAGED = ("limit", "page_token", *PAST)
FEED = ("after", "from", "ticket")
