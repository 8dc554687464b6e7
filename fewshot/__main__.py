"""`python -m fewshot` is the `fewshot` command."""

import sys

try:
    from fewshot.cli import main
except KeyboardInterrupt:  # while there is nothing yet that would handle it
    print("\ninterrupted", file=sys.stderr)  # noqa: T201 - click may not have been imported
    sys.exit(130)

main()
