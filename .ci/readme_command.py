"""Print one of the README's commands, so that what is documented is what is run.

A command is the first bash block after a line ``<!-- command: NAME -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def readme_command(name: str) -> str:
    """Return the text of the command called ``name``.

    Raises:
        SystemExit: the README has no such command.
    """
    pattern = rf"<!-- command: {re.escape(name)} -->\s*```bash\n(.*?)```"
    found = re.search(pattern, README.read_text("utf-8"), re.DOTALL)
    if not found:
        raise SystemExit(f"README.md holds no command named {name!r}")
    return found.group(1)


if __name__ == "__main__":
    print(readme_command(sys.argv[1]))
