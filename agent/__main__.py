"""The `byheart` command: runs the command line and turns expected errors into messages.

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 nothing to learn.
"""

import os
import sys

from agent.cli.app import app
from agent.cli.errors import explain

UMASK = 0o077
"""Database, spool and adapters contain what people wrote: only the owner may read them."""


def main() -> None:
    """Run the command line."""
    os.umask(UMASK)
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # boundary: the command line
        message, code = explain(error)
        if message is None:
            raise
        sys.stderr.write(f"byheart: {message}\n")
        sys.exit(code)


if __name__ == "__main__":
    main()
