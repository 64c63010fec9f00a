"""Names of files as they occur."""

ODD_NAMES = [
    b"plain.wav",
    b"two words.wav",
    b'it\'s "quoted".wav',
    "Vögel über Köln.wav".encode(),
    b"line\nbreak.wav",
    b"not utf8 \xff\xe9.wav",
    b"100%25.wav",
    b"[a]*?.wav",
    b"query?x=1#y.wav",
    b"s3:::strange.wav",
]
