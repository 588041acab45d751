"""Logs that earlier versions left, read by this one."""
