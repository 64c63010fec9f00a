"""`mats search`, `serve`, `export`, `sample`: what an archive holds is found, put right, handed on, checked by hand."""
