from . import environment  # completes what libraries need of a user's environment, before they are imported

__version__ = "0.1.0"
