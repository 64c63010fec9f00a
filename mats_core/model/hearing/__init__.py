"""What was heard of a sound, before it is asked.

clips      sound → clips of a minute, embedded
grouping   clips of a minute → one of the whole file, or one a window
"""
