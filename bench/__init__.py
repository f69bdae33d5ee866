"""How fast events reach handlers, beside the best that a Python program could reach: ``python -m bench``."""
