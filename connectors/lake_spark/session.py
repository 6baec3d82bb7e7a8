"""Finding, or starting, the Spark session that tasks run in."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lake.errors import InvalidInput

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as RemoteSession

Session: TypeAlias = "SparkSession | RemoteSession"

# Any of these says that somebody has settled which Spark this process uses.
_SETTLED = ("PYSPARK_GATEWAY_PORT", "PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR", "SPARK_HOME", "SPARK_REMOTE")


def find_session(address: str | None = None) -> Session:
    """Return the active session, or start one.

    Parameters
    ----------
    address : str, optional
        ``"sc://host:15002"`` for Spark Connect, ``"spark://host:7077"`` or any other master. By default the active
        session, else what spark-submit or the environment says, else all cores of this machine.

    Raises
    ------
    InvalidInput
        If there is no Java, Spark does not start, or another session is in the way.
    """
    # At DEBUG, py4j logs all that it sends to the JVM: pickled tasks, with the credentials that they hold.
    logging.getLogger("py4j").setLevel(logging.INFO)
    try:
        if address is None:
            return SparkSession.getActiveSession() or _start(None if _is_settled() else "local[*]")
        if address.startswith("sc://"):
            return _connect(address)
        session = _start(address)
    except PySparkException as error:
        raise InvalidInput(f"Spark does not start at {address or 'the default master'}: {error}") from error
    if (master := session.sparkContext.master) != address:
        raise InvalidInput(f"this process runs Spark at {master} already, not at {address}: stop that session first")
    return session


def require_java() -> None:
    """Refuse to start a JVM where there is none.

    Raises
    ------
    InvalidInput
        There is no ``java`` in ``JAVA_HOME`` or on the ``PATH``.
    """
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java") or (home and (Path(home) / "bin" / "java").exists()):
        return
    raise InvalidInput(
        "Spark needs Java 17 or newer, and there is none in JAVA_HOME or on the PATH: apt-get install "
        "openjdk-17-jre-headless (Debian, Ubuntu), brew install openjdk@17 (macOS), or https://adoptium.net; a "
        "Spark Connect address (sc://…) needs none on this machine"
    )


def _is_settled() -> bool:
    return any(name in os.environ for name in _SETTLED)


def _start(master: str | None) -> SparkSession:
    require_java()
    builder = SparkSession.builder.appName("lake")
    if master is not None:
        builder = builder.master(master)
    if master is not None and master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        # Under this machine's name or outer address a firewall, or a name that resolves elsewhere, loses results.
        builder = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "lance is not fork-safe")  # a fork that becomes the JVM at once
        return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


def _connect(address: str) -> RemoteSession:
    # The builder of `pyspark.sql` refuses to connect while this process has a classic session; the two get along.
    from pyspark.sql.connect.session import SparkSession as RemoteSession

    return RemoteSession.builder.remote(address).create()
