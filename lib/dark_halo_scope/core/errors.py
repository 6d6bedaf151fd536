"""Errors whose message a user reads: one sentence that says what is wrong, where, and what to do."""


class DarkHaloScopeError(Exception):
    """Base of every error that a command line reports as one sentence instead of a traceback."""


class ConfigError(DarkHaloScopeError):
    """A setting is unknown, missing or out of range."""


class BadInputError(DarkHaloScopeError):
    """An input file or row is not what this step can read: wrong release, format, shape or content."""


class CorruptDataError(DarkHaloScopeError):
    """Data differ from what their manifest, header or checksum says."""


class LockHeldError(DarkHaloScopeError):
    """Another live process owns what this one wants to write."""


class StorageError(DarkHaloScopeError):
    """A disk, bucket or server cannot take or give data: full, read-only, gone, throttled or refusing."""
