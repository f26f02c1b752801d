"""`python -m moengage_personalize.emulator`."""

import sys

from moengage_personalize.emulator._main import main

sys.exit(main())
