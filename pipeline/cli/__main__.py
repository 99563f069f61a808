"""`python -m pipeline.cli`: the command `plateau`."""

import sys

from .main import main

sys.exit(main())
