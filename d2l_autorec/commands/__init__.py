"""The commands: their flags, and what they print and write."""
