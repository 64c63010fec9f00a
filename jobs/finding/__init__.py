"""`mats search`, `mats export`, `mats sample`: what is found in a captioned archive, handed on, and checked by hand."""
