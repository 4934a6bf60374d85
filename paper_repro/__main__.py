"""Run the reproductions: python -m paper_repro [NAMES...] [--quick] [--out DIR] [--data DIR] [--fetch]."""

from __future__ import annotations

import sys

from paper_repro.run import main

sys.exit(main())
