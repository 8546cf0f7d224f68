"""Training: one step a job, one loop, checkpoints and records."""
