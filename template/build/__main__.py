"""Builds the built-in hand: python -m template.build"""

import sys

from template.build.template import main

sys.exit(main())
