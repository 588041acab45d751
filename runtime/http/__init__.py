"""The HTTP/1.1 server of both listeners: framing (`head`, `chunks`), limits, connections, exchanges.

It is strict: a request that two programs could read in two ways is refused, and the connection is closed. uvicorn
accepts the connections, implements WebSocket, and stops the server. Its HTTP parsers are not used: they lose bodies of
requests with an Upgrade header, have no limits, and give no answer to clients that half-close. Start with
`connection.py`.
"""
