"""What guests and this host use: sampled at equal times, kept for a day, shown to Prometheus and on request.

`sampler.py` takes a sample of all guests and of the host (`host.py`), and adds it to the file (`series.py`).
`averages.py` makes the answer to a request, `metrics.py` the text for Prometheus, which `listener.py` serves. Nothing
of this reaches the log, the heartbeats or the process's log. Start with `sampler.py`.
"""
