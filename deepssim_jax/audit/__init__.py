"""Auditing images and volumes, and reporting what was found."""
