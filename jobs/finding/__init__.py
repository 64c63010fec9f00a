"""`mats search` and `mats export`: what is found in a captioned archive, and handed on."""
