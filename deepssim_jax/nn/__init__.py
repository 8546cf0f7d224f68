"""Networks (Flax NNX) and the frozen specifications they are built from."""
