"""``python -m gtm_pyro.cli``."""

import sys

from gtm_pyro.cli.parser import main

sys.exit(main())
