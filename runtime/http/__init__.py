"""HTTP/1.1 as a server speaks it, for both listeners: framing (`head`, `chunks`), limits, connections, exchanges.

Strict: what two programs could read in two ways is refused, and the connection is closed. uvicorn accepts the
connections, speaks WebSocket and stops; it parses no HTTP here, since its parsers lose bodies of requests that offer an
upgrade, know no limits, and leave clients that half-close without an answer. Start reading at `connection`.
"""
