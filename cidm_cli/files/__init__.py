"""The one guarded door for whatever is read or written."""
