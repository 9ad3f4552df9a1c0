"""`python -m node.worker`."""

import gc
import sys

# What is imported stays: a collection in between finds nothing to free. `main` turns them on again.
gc.disable()

from node.worker.app import main  # noqa: E402  only now

sys.exit(main())
