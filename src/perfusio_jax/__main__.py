"""`python -m perfusio_jax`."""

from perfusio_jax.cli import main

if __name__ == "__main__":
    main()
