"""The names of query parameters that many reads take."""

FRESH = ("min_position",)
PAGED = ("limit", "page_token", *FRESH)
FEED = ("after", "from", "ticket")
