"""An error that a Spark task raised, as the one sentence that it was before it crossed two processes and a JVM."""

import contextlib
import re
from collections.abc import Iterator

from dark_halo_scope.core import errors

_RAISED = re.compile(r"^(?:.*\s)?dark_halo_scope\.core\.errors\.(\w+): (.+)$", re.MULTILINE)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise a task's own DarkHaloScopeError again in the driver.

    Raises:
        DarkHaloScopeError: of the class and with the sentence that the task raised.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        found = _RAISED.search(str(error))
        kind = getattr(errors, found[1], None) if found else None
        if found is None or not (isinstance(kind, type) and issubclass(kind, errors.DarkHaloScopeError)):
            raise
        raise kind(found[2].strip()) from error
