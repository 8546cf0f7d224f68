"""Embedding, searching, verifying and deciding: from images to labelled pairs."""
