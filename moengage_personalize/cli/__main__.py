"""`python -m moengage_personalize.cli`."""

import sys

from . import main

sys.exit(main())
