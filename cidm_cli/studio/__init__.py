"""`cidm studio`: one page in a browser, served to this machine alone.

The server imports no torch. A worker, a process of its own, keeps the base warm and does one job after another; what
the page asks of it goes through a queue, and what becomes of it comes back as events.
"""
