"""The state of the platform in the gateway's memory: heartbeats, reports of processes, parked messages, metrics.

`gateway/operators/` shows it. No call is answered here.
"""
