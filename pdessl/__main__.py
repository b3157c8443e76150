"""``python -m pdessl``: the command ``pdessl``."""

import sys

from pdessl.cli import main

sys.exit(main())
