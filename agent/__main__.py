"""The `byheart` command, and the boundary at which its errors become messages.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nothing to learn.
"""

import os
import sys

from agent.cli.app import app
from agent.cli.errors import explain

PRIVATE = 0o077
"""What people say is in the database, the spool and the adapters: for the owner's eyes alone."""


def main() -> None:
    """Run the command line."""
    os.umask(PRIVATE)
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
