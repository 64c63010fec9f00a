"""`--where`: which rows of a run a condition holds for. It is SQL of whoever asks, and reaches the rows alone.

DuckDB is given the table, and nothing else: no file, no network, no extension, no variable of this process, no setting
to change, and SECONDS of time.
"""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa

from mats_core.errors import SettingsError, first_line

SECONDS = 60.0
CLOSED = (
    "SET enable_external_access = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",
    "SET max_memory = '4GB'",
    "SET max_temp_directory_size = '0GB'",
    "SET lock_configuration = true",
)


def rows_where(rows: pa.Table, condition: str) -> np.ndarray:
    """bool [rows]: where `condition`, SQL over their columns, is true. Raises SettingsError for one that is none."""
    import duckdb

    numbered = rows.append_column("__row", pa.array(np.arange(len(rows))))
    with duckdb.connect(":memory:") as database:
        database.register("run", numbered)
        for line in CLOSED:
            database.execute(line)
        timer = threading.Timer(SECONDS, database.interrupt)
        timer.start()
        try:
            # note: an expression by itself, so that nothing can close a bracket and go on
            chosen = database.table("run").filter(duckdb.SQLExpression(f"({condition}\n)")).select("__row")
            found = chosen.fetchnumpy()["__row"]
        except duckdb.InterruptException:
            remedy = "choose a simpler one"
            raise SettingsError("where", f"the condition took longer than {SECONDS:.0f} s", remedy) from None
        except (duckdb.Error, RuntimeError, ValueError) as error:
            names = ", ".join(name for name in rows.schema.names if name != "windows")
            problem = f'"{condition}" is no condition over the run\'s columns ({first_line(error)})'
            raise SettingsError("where", problem, f"give one over {names}") from None
        finally:
            timer.cancel()
    mask = np.zeros(len(rows), bool)
    mask[np.asarray(found, np.int64)] = True
    return mask
