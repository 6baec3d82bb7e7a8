"""Find, for every row of one table, its nearest rows of another.

    python jobs/knn_join.py conf/knn_join.yaml
    spark-submit jobs/knn_join.py conf/knn_join.yaml --engine spark
    ray job submit --working-dir . -- python jobs/knn_join.py conf/knn_join.yaml --engine ray

The same as ``lake run conf/knn_join.yaml``, for schedulers that want a program; ``--help`` tells the options. What
the job does is in `lake.job`, since workers import what they run. Exit codes: 0 done, now or before; 1 failed;
2 wrong call, configuration or data; 3 not found; 4 conflict, try again; 5 unknown, repeat with the same job id.
"""

import sys

from lake.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:], "--only", "knn_join"])
