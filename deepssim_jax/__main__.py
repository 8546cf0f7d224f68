"""`python -m deepssim_jax COMMAND` is `deepssim COMMAND`."""

from deepssim_jax.cli import main

if __name__ == "__main__":
    main.run()
