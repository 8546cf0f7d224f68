"""The host's side: finding, reading and preparing images, and making phantoms."""
