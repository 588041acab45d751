"""What the gateway hears and counts, in memory: heartbeats, reports of processes, parked messages, numbers.

`gateway/operators/` shows it. No call is answered here.
"""
