"""The parts of HTTP that all calls use: parameters and headers, the body, and problem documents.

This room does not depend on the calls, and imports no other room of the gateway.
"""
