"""`python -m broker.core`: builds the compiled core where it is missing, or says why it cannot be built.

With `--once` it says that once, and tries again when something has changed.
"""

from __future__ import annotations

import sys

from broker.core.build import NotBuilt, build, given_up, up_to_date


def main() -> int:
    if up_to_date() or ("--once" in sys.argv and given_up()):
        return 0
    sys.stdout.write("core: compiling what known statements go through\n")
    sys.stdout.flush()
    try:
        build()
    except NotBuilt as error:
        sys.stdout.write(f"core: {error}\ncore: without it everything works, at half the speed\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
