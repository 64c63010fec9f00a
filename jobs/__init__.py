"""The command line: `mats <job> …`, the same as `python -m jobs <job> …`."""
