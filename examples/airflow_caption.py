"""A DAG for Airflow 2.4 or newer: once a day, what is new in a bucket is captioned on a Ray cluster.

Copy it to `dags/`. `mats` must be installed where the worker runs, and RAY_AUTH_TOKEN be in its environment where the
cluster is closed. Any code but 0 fails the task, and a retry continues: 1 (what went wrong is in the log), 2 (a setting
that cannot work, or another run still writes into OUTPUT), 3 (more bad files than --max-error-rate allows). A task that
Airflow ends leaves its job running on the cluster; the log says how to stop that.
"""

from __future__ import annotations

import pendulum
from airflow import DAG
from airflow.operators.bash import BashOperator

with DAG("mats_caption", schedule="@daily", start_date=pendulum.datetime(2026, 1, 1), catchup=False, max_active_runs=1):
    BashOperator(
        task_id="caption",
        bash_command="mats submit --address http://ray:8265 caption s3://my-archive/ s3://my-answers/all --actors 8",
        append_env=True,
        retries=2,
    )
