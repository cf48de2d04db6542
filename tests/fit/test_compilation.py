"""Compiled programs that were cut off are compiled anew, and kept."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp
from metatune.fit.process.compilation import keep_compiled
keep_compiled()
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))[0, 0])
"""


def test_an_entry_that_was_cut_off_is_replaced(tmp_path):
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PLATFORMS": "cpu",
    }

    def run():
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = run()
    cut = {path: path.read_bytes()[:-20] for path in tmp_path.glob("*-cache")}
    assert cut
    for path, content in cut.items():
        path.write_bytes(content)
    assert run() == first
    mended = {path: path.read_bytes() for path in cut}
    assert all(mended[path] != content for path, content in cut.items())
    assert run() == first
    assert {path: path.read_bytes() for path in cut} == mended  # they could be read
