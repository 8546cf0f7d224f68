"""The jobs made of the rooms below: auditing, and reporting what was found."""
