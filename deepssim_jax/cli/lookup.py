"""Says which image of a prepared folder an image is a copy of, and which patient's.

    deepssim lookup scan.png --index=training_index/

The answer is a table on the standard output, one row a match, which names files and patients of the
index. IMAGE may be a folder or a manifest of several.
"""

from concurrent.futures import ThreadPoolExecutor

from absl import flags

from deepssim_jax.cli import compile_cache, usage
from deepssim_jax.cli.exit_codes import ExitCode

POSITIONALS = ("IMAGE",)
_INDEX = flags.DEFINE_string("index", None, "the --out of `deepssim index`", required=True)
_CHECK = flags.DEFINE_bool("check", False, "compare the hashes of the index first; reads all of it")


def main(image: str) -> int:
    """Prints the matches.

    Args:
        image: The image to look up, or a folder or manifest of several.

    Returns:
        `ExitCode.DONE`, or `INCONCLUSIVE` if an image could not be looked up.
    """
    usage.exists(_INDEX, "folder")
    from deepssim_jax.features.extract import load_extract
    from deepssim_jax.ops import programs

    folder = compile_cache.prepare()
    if folder is not None and not compile_cache.private(folder):
        folder = None
    # Most of the time goes into loading programs: others do so while all else is made ready.
    with programs.kept_in(folder), ThreadPoolExecutor(2) as pool:
        pool.submit(load_extract)
        from deepssim_jax.jobs.lookup import (
            answers_csv,
            load_search,
            load_verification,
            lookup,
        )
        from deepssim_jax.jobs.point_index import open_index

        index = open_index(_INDEX.value, check=_CHECK.value)
        pool.submit(load_verification, index)
        load_search(index)
        answers = lookup(image, index=index)
    print(answers_csv(answers).decode(), end="")
    refused = any(answer.refused for answer in answers)
    return ExitCode.INCONCLUSIVE if refused else ExitCode.DONE
