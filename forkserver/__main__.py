"""``python -m forkserver``: the same program as the command ``forkserver``.

The current directory is importable for the application only, not for forkserver itself.
"""

from __future__ import annotations

import os
import sys

# -m puts the current directory first on sys.path. In the master, the application's own logging.py would be imported in
# place of the stdlib's; and after a switched link the old release would stay on the path. application.enter() adds it.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from forkserver.cli.serve import main

sys.exit(main())
