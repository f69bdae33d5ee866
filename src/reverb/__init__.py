"""python-reverb."""
