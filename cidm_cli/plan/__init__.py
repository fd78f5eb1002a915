"""What a plan would take, and what this machine has."""
