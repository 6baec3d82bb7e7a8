"""Every error that the lake raises, grouped by what a handler would do about it.

=====================  =================================================================
class                  what to do
=====================  =================================================================
`InvalidInput`         mend the call or the data; trying again changes nothing
`NotFound`             name something that exists
`AlreadyExists`        choose another name, or open what is there
`Conflict`             read the table again and repeat the operation
`CommitUnknown`        repeat the call with the same ``commit_id``: it looks before it writes
`StorageError`         mend the store, or use another one
`JobError`             read the cause, mend it, run the same job again: it resumes
`NotSupported`         use what the message offers instead
=====================  =================================================================
"""


class LakeError(Exception):
    """Base of all errors of the lake."""


class InvalidInput(LakeError, ValueError):
    """The call or the data is wrong; the message names the place and the remedy."""


class NotFound(LakeError, LookupError):
    """A table, version, tag, column or index that does not exist."""


class AlreadyExists(LakeError):
    """Something of that name is there already."""


class Conflict(LakeError):
    """Another writer changed what this operation had read.

    Parameters
    ----------
    ours, theirs : str
        What this commit did, and what the commit that preempted it did.
    """

    def __init__(self, message: str, *, ours: str = "", theirs: str = "") -> None:
        super().__init__(message)
        self.ours = ours
        self.theirs = theirs


class CommitUnknown(LakeError):
    """The store did not say whether a commit took effect, and looking did not settle it.

    Parameters
    ----------
    commit_id : str
        Repeat the call with this id: if the commit took effect, the repeat does nothing.
    """

    def __init__(self, message: str, *, commit_id: str) -> None:
        super().__init__(message)
        self.commit_id = commit_id

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class StorageError(LakeError):
    """The object store failed, refused, or returned what cannot be right."""


class UnsafeStore(StorageError):
    """The store ignores put-if-absent, so concurrent commits would lose acknowledged rows."""


class CorruptTable(StorageError):
    """A file of the table is missing, truncated or changed."""


class JobError(LakeError):
    """A job could not finish; its ledger holds what did."""


class TaskFailed(JobError):
    """A task failed more often than its stage allows, or its data are wrong; ``__cause__`` is its own error.

    Parameters
    ----------
    key : str
        The task's key.
    attempts : int
        How often it was tried.
    """

    def __init__(self, message: str, *, key: str, attempts: int) -> None:
        super().__init__(message)
        self.key = key
        self.attempts = attempts

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class MemoryExceeded(JobError):
    """A stage's tasks would not fit into a worker's memory; nothing was run."""


class Cancelled(JobError):
    """The job was cancelled by its caller."""


class NotSupported(LakeError, NotImplementedError):
    """A legal wish that the lake cannot fulfil yet."""


def _rebuild(cls: type[LakeError], args: tuple[object, ...], state: dict[str, object]) -> LakeError:
    """Unpickle an error whose ``__init__`` takes keywords (workers send them to the driver)."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
