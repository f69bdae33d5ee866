"""The version of this release. (Asking for that of the installed distribution takes 20 ms of a start.)"""

__version__ = "0.1.0"
