"""Vendors' servers in miniature, on this machine: they speak the real shapes, keep the limits, and fail on demand."""
