"""Keeps compiled programs between processes, so that a second run starts at once."""

import os
import sys
from pathlib import Path
from typing import Any

import jax


def keep_compiled() -> None:
    """Points JAX's persistent compilation cache to the user's cache folder.

    A folder that the user has set (`JAX_COMPILATION_CACHE_DIR`) is left as it is.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        set_option("jax_compilation_cache_dir", str(home / "metatune" / "compiled"))


def set_option(name: str, value: Any) -> bool:
    """Sets an option of JAX, and returns whether this JAX has it.

    Options come and go between the releases that metatune works with; none that is set here changes
    a result, so that one which is unknown is left out, with a line on stderr.
    """
    try:
        jax.config.update(name, value)
    except AttributeError:
        print(f"left out: jax {jax.__version__} has no option {name}", file=sys.stderr)
        return False
    return True
