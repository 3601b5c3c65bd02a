"""Compile `common.core` with mypyc, unless that was done for its sources as they are: `make setup` runs this.

The extensions go to the folder that `common.core.compiled` names, complete or not at all. Where nothing can
be compiled this says so and succeeds: the sources run as they are, at about a third of the speed.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from common.core import compiled

ROOT = Path(__file__).parent
SCRATCH = "making-"
# Of its own, so that the settings of `make types` change nothing here.
MYPY = ("--config-file=", "--explicit-package-bases", "--namespace-packages", "--no-error-summary")


def main() -> None:
    target = compiled.folder()
    if compiled.is_complete(target):
        return
    os.chdir(ROOT)  # mypyc takes the names of modules from paths.
    print("Compiling common.core (once for its sources, half a minute) ...", flush=True)
    compiled.BUILDS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=compiled.BUILDS) as scratch:
        made = _build(Path(scratch))
        if made is None:
            return
        if compiled.folder() != target:
            sys.exit("common.core was changed while it was compiled: run it once more")
        for old in compiled.BUILDS.iterdir():
            if not old.name.startswith(SCRATCH):
                shutil.rmtree(old)
        made.rename(target)
    assert compiled.is_complete(target)


def _build(scratch: Path) -> Path | None:
    """The folder with the extensions; None, with a line that says why, when there is no way."""
    try:
        from mypyc.build import mypycify
        from setuptools import Distribution
        from setuptools.errors import BaseError, CCompilerError
    except ImportError as error:
        _go_on_pure(error)
        return None
    sources = [str((compiled.SOURCES / f"{name}.py").relative_to(ROOT)) for name in compiled.MODULES]
    extensions = mypycify(
        [*MYPY, f"--cache-dir={scratch / 'mypy'}", *sources],
        target_dir=str(scratch / "c"),
        group_name="common.core.native",
        debug_level="0",
    )
    build = Distribution({"name": "core", "ext_modules": extensions}).get_command_obj("build_ext")
    build.build_lib, build.build_temp = str(scratch / "lib"), str(scratch / "temp")
    build.ensure_finalized()
    try:
        build.run()
    except (BaseError, CCompilerError) as error:
        _go_on_pure(error)
        return None
    return scratch / "lib" / "common" / "core"


def _go_on_pure(why: Exception) -> None:
    print(f"common.core is not compiled and runs as pure Python, slower: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
