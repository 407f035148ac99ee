"""Docker's SDK is loaded without what guesses texts' encodings: requests brings it along (charset_normalizer, 3 MB of the agent), and takes
UTF-8 where it is missing, which is all that Docker speaks. engine.py and engine_images.py import this first."""

from __future__ import annotations

import sys
import warnings

if "requests" not in sys.modules:
    sys.modules.setdefault("charset_normalizer", None)  # type: ignore[arg-type]  # to Python: there is no such module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # requests says that it is missing
        import requests  # noqa: F401
