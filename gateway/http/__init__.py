"""HTTP as every call has it: parameters and headers, the body, and refusals as problem documents.

Knows nothing of what is asked for, and imports no other room of the gateway.
"""
