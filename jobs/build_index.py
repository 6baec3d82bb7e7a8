"""Declare the indexes of a table, and bring all that are declared up to date.

    python jobs/build_index.py conf/build_index.yaml
    spark-submit jobs/build_index.py conf/build_index.yaml --engine spark
    ray job submit --working-dir . -- python jobs/build_index.py conf/build_index.yaml --engine ray

The same as ``lake run conf/build_index.yaml``, for schedulers that want a program; ``--help`` tells the options. What
the job does is in `lake.job.kinds`, since workers import what they run. Exit codes: 0 done, now or before; 1 failed;
2 wrong call, configuration or data; 3 not found; 4 conflict, try again; 5 unknown, repeat with the same job id.
"""

import sys

from lake.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:], "--only", "build_index"])
