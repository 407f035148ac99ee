"""`python -m hmctl` is hmctl."""

from __future__ import annotations

from hmctl.cli.main import main

if __name__ == "__main__":
    main()
