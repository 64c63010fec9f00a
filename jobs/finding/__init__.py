"""`mats search`, `mats serve` and `mats export`: what is found in a captioned archive, put right, and handed on."""
