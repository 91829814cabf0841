"""`python -m stretto.benchmarks`: the `stretto bench` commands by themselves."""

import sys

from .cli import main

sys.exit(main())
