"""The exceptions that metanet raises on purpose."""


class MetanetError(Exception):
    """Bad input, explained: what was given, where, what is allowed, and what to do.

    Every error a user can cause is one of these (or a subclass), so that commands print the message
    without a traceback while programming errors keep theirs.
    """


class CheckpointError(MetanetError):
    """A checkpoint is damaged, unsafe to read, or does not fit the architecture it was given with."""


class TraceError(MetanetError):
    """A network could not be recorded: missing inputs, a forward that raises, no tensor as output."""


class UntoldNeuronsWarning(UserWarning):
    """An alignment leaves groups of neurons as they are, because nothing tells their neurons apart."""
