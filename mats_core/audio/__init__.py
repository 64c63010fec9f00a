"""From a file to a mono waveform and its windows. NumPy only: no torch, no Ray, no network of its own.

Public: `decode`, `probe`, `DecodeLimits` (decode), `IsolatedDecoder`, `DecodeRequest` (sandbox), what windows holds,
`AudioError` and `AudioInfo` (file), `AUDIO_EXTENSIONS` (signatures). Files that are not trusted go through the sandbox.
Rooms above may import these; this room imports `mats_core.storage` and `mats_core.errors` alone.

    decode           which reader opens a file, what its header says, and a stretch of it as int16 mono
    windows          chunks of a file or of a stretch of it, windows of a chunk, the mean of windows
    file             a file that C decoders may read, an opened source, AudioInfo, AudioError
    sources          what a program may give as a sound: a path, an open file, samples
    levels           how loud a stretch is, what is clipped, what is silence
    signatures       what a file is by its name and its first bytes
    readers/         what opens a file and gives its samples in blocks
    repair           headers that say wrongly where the sound ends, of every kind; tags; files joined
    beginnings       what begins in the midst of a file: tags, another file, frames of a bare stream
    ends             where the sound of a file that FFmpeg reads ends: promises of headers, last whole frames
    chunks           where the sound is in WAV, RF64, W64, AIFF, CAF and AU
    sandbox          decoding in child processes with limits on memory and time
    sandbox_process  what runs in such a child
"""
