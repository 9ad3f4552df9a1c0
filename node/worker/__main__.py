"""`python -m node.worker`."""

import sys

from node.worker.app import main

sys.exit(main())
