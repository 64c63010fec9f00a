"""Readers: each opens files of some formats, and gives their samples in blocks and tells what is lost of them.

libsndfile  the first: exact seeks
ffmpeg      the other, through PyAV: further containers and codecs, by their time stamps
container   an open container for it: packets, and what they decode to
mp3         MP3 by its own frames: lengths and places that no header can get wrong
flac        FLAC by its own frames: the length the last one tells, and damaged files
ogg         Ogg's pages, and streams or files one behind the other as one sound
"""
