"""Processes, signals, hardware and its memory."""
