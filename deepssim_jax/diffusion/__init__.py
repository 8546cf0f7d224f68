"""Diffusion as functions of arrays: schedules, objectives, samplers."""
