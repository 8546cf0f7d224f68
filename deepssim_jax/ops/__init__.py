"""Pure, jit-compiled functions of arrays; no input or output."""
