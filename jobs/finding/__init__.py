"""What an archive holds is found, put right, handed on, checked by hand.

search   `mats search`: windows by words, by another sound, or because they are like nothing else
serve    `mats serve`: runs in a browser
export   `mats export`: a run as other programs read it
sample   `mats sample`: clips for a person to judge, and what their judgements say of all
"""
