"""The command line: its commands, and the boundary where errors become messages."""
