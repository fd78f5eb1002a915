"""What a user may set: each option in one place, by what it is for."""
