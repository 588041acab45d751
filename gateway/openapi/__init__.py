"""The API's description for programs, made from the tables and models that the gateway uses itself.

Start with `openapi.py`.
"""
