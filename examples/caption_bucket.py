"""Caption a bucket, and look at what came of it.

    python examples/caption_bucket.py s3://sounds/2024/ s3://answers/2024/ [MODEL]

Credentials and endpoint are found where the AWS command line finds them. Run it again after an interruption, or when
there are new files: what is answered is not done again. Any folder or URL will do in place of the buckets.
"""

from __future__ import annotations

import sys

from pipelines import SettingsError, run_caption


def main(sounds: str, answers: str, model: str = "builtin") -> int:
    try:
        result = run_caption(input=sounds, output=answers, model=model)
    except SettingsError as error:  # before any work: "input: …; do this instead"
        print(error, file=sys.stderr)
        return 2
    print(f"{result.status}: {result.rows} clips, {result.seconds / 3600:.2f} h, {result.new_rows} of them new")

    rows = result.to_pandas(["uri", "start_s", "text", "error_code", "error_message"])
    failed = rows[rows.error_code.notna()]
    for row in failed.itertuples():
        print(f"{row.error_code}: {row.uri}: {row.error_message}")
    print(rows[rows.error_code.isna()][["uri", "start_s", "text"]].head(10).to_string(index=False))
    return 1 if len(failed) == len(rows) else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
