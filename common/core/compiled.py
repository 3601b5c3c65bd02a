"""Where the compiled form of this package lies, when it was made of the sources as they are now.

`build_core.py` compiles `MODULES` with mypyc into a folder that is named for the hash of their sources, and
`common.core` looks there before it looks here. So what was made of other sources is never found: after a
change the sources run as they are, until they have been compiled again.
"""

from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SOURCES = Path(__file__).parent
BUILDS = SOURCES / ".compiled"
MODULES = (
    "book",
    "engine",
    "fees",
    "levels",
    "match",
    "messages",
    "orders",
    "outward",
    "restoring",
    "sequencing",
    "units",
)


def folder() -> Path:
    """The folder of these sources, whether it is there or not."""
    digest = sha256()
    for name in MODULES:
        source = (SOURCES / f"{name}.py").read_bytes()
        digest.update(f"{name} {len(source)}\n".encode())
        digest.update(source)
    return BUILDS / digest.hexdigest()[:32]


def is_complete(build: Path) -> bool:
    """Whether the folder has every module for this very Python."""
    return all((build / f"{name}{EXTENSION_SUFFIXES[0]}").exists() for name in MODULES)
