"""The table of commands, and how one of them is brought in.

A command is a module `cli/<name>.py`. It defines its absl flags as it is imported and has `main`, which
takes its positional arguments, whose names stand in the module's `POSITIONALS` (none when it has no such
tuple), and returns the exit status. Where its flags decide whether several processes do it together, its
`together()` says so.
Flags that several commands share are defined for each of them by a function of a module of this package
that is no command and disclaims them.
"""

import importlib
import types

from absl import flags

_PACKAGE = "deepssim_jax.cli"

# Listed by --help in this order.
COMMANDS: dict[str, str] = {
    "demo": "plant copies in a made-up cohort, audit it and say how many were found",
    "audit": "find the synthetic images that are copies of a real one, and write the report",
    "replicas": "find the synthetic volumes that are copies of a real one, and write the report",
    "duplicates": "find images of a data set that are copies of each other, also between its splits",
    "index": "prepare a folder of images to be looked up in",
    "lookup": "say which image of a prepared folder, and of whom, an image is a copy of",
    "review": "write a page on which people decide pairs by eye, and sum their ratings up",
    "embed": "embed a folder of images into a store (a stage of audit, for large sets)",
    "score": "search and verify between two stores (a stage of audit, for large sets)",
    "evaluate": "score a matrix of similarities against labelled pairs",
    "stress": "plant copies of real images and measure how well every method finds them",
    "verify": "check a finished audit, or a certificate, from its files",
    "prepare": "bring IXI or CoRR, as downloaded, into training images of one size",
    "train_encoder": "train the network that embeds images",
    "train_vae": "train the autoencoder of a generator",
    "train_ldm": "train a latent diffusion model on the autoencoder's latents",
    "generate": "draw images from a trained latent diffusion model",
    "filter": "write anew those images of a folder that are no copy of a training image",
    "utility": "train on synthetic and on real images, and compare on patients held out",
    "convert": "other projects' weights to ours, and back",
    "doctor": "show devices, processes, versions, weights and what is missing",
}

# What several processes do together; all else is done by the first one alone. The doctor is to say what
# is wrong with a job, not to wait for it.
_TOGETHER = frozenset(
    {"audit", "replicas", "duplicates", "embed", "score", "generate"}
    | {"train_encoder", "train_vae", "train_ldm"}
)

# Flags of commands that this process ran earlier, out of the way of the present one's.
_set_aside: dict[str, list[flags.Flag]] = {}


def together(command: str, module: types.ModuleType) -> bool:
    """Whether all processes of a job do this command, whose flags are parsed, together."""
    return command in _TOGETHER and getattr(module, "together", lambda: True)()


def processes_of(command: str) -> str:
    """What the processes of a job do of a command, for its help."""
    if command not in _TOGETHER:
        return "In a job of several processes the first one does this alone."
    return "Several processes of a job (launch/README.md) do this together, with the same outcome."


def load(command: str) -> types.ModuleType:
    """Imports a command so that its flags are the only command's flags that exist.

    Two commands may define a flag of the same name. One process normally runs one command; where
    it runs several, as tests do, the earlier ones' flags are set aside and all values forgotten.

    Args:
        command: A key of `COMMANDS`.

    Returns:
        The command's module.
    """
    name = f"{_PACKAGE}.{command}"
    for other in COMMANDS:
        module = f"{_PACKAGE}.{other}"
        if module != name:
            owned = flags.FLAGS.get_flags_for_module(module)
            if owned:
                _set_aside[module] = owned
            for flag in owned:
                delattr(flags.FLAGS, flag.name)
    # ml_collections defines a flag for each field that a command line changes, and never forgets it.
    for field in [flag for flag in flags.FLAGS if "." in flag]:
        delattr(flags.FLAGS, field)
    loaded = importlib.import_module(name)
    for flag in _set_aside.pop(name, ()):
        flags.FLAGS[flag.name] = flag
        flags.FLAGS.register_flag_by_module(name, flag)
    flags.FLAGS.unparse_flags()
    return loaded
