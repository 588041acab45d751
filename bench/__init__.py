"""Measurements: rates and latencies of the whole platform on real servers. Nothing imports this."""
