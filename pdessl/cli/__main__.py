"""``python -m pdessl.cli``."""

import sys

from pdessl.cli import main

sys.exit(main())
