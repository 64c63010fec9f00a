"""What `test_against_ffmpeg` compares, and where a run is right without hearing what `ffmpeg` hears."""

from __future__ import annotations

import re

CONTAINERS = {
    "3g2": "aac",
    "3gp": "aac",
    "ac3": "ac3",
    "adts": "aac",
    "adx": "adpcm_adx",
    "aiff": (
        "adpcm_ima_qt adpcm_ima_ws pcm_alaw pcm_f32be pcm_f64be pcm_mulaw pcm_s16be pcm_s16le pcm_s24be "
        "pcm_s32be pcm_s8 pcm_u8"
    ),
    "apm": "adpcm_ima_apm",
    "argo_asf": "adpcm_argo",
    "asf": (
        "aac ac3 adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha dfpwm eac3 flac g723_1 libgsm_ms "
        "libmp3lame libspeex libvorbis mp2 pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le "
        "pcm_s32le pcm_s64le pcm_u8 vorbis wmav1 wmav2"
    ),
    "ast": "pcm_s16be_planar",
    "au": "g722 pcm_alaw pcm_f32be pcm_f64be pcm_mulaw pcm_s16be pcm_s24be pcm_s32be pcm_s8",
    "avi": (
        "aac ac3 adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha dca dfpwm eac3 flac g723_1 libgsm_ms "
        "libmp3lame libspeex libvorbis mp2 pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le "
        "pcm_s32le pcm_s64le pcm_u8 vorbis wmav1 wmav2"
    ),
    "caf": (
        "ac3 adpcm_ima_qt adpcm_ima_wav adpcm_ms alac libgsm libgsm_ms libmp3lame libopus mp2 pcm_alaw "
        "pcm_f32be pcm_f32le pcm_f64be pcm_f64le pcm_mulaw pcm_s16be pcm_s16le pcm_s24be pcm_s24le "
        "pcm_s32be pcm_s32le pcm_s8"
    ),
    "dts": "dca",
    "eac3": "eac3",
    "f4v": "aac libmp3lame",
    "flac": "flac",
    "flv": "aac adpcm_swf libmp3lame libspeex nellymoser pcm_s16le pcm_u8",
    "gxf": "pcm_s16le",
    "ipod": "aac ac3 alac",
    "ircam": "pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le pcm_s32le pcm_s8",
    "ismv": "aac alac libmp3lame libvorbis mp2 vorbis",
    "kvag": "adpcm_ima_ssi",
    "latm": "aac",
    "matroska": (
        "aac ac3 alac dca eac3 flac g722 libmp3lame libopus libvorbis mlp mp2 pcm_f32le pcm_f64le "
        "pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32be pcm_s32le pcm_u8 truehd tta vorbis wavpack "
        "wmav2"
    ),
    "mlp": "mlp",
    "mmf": "adpcm_yamaha",
    "mov": (
        "aac ac3 adpcm_ima_qt alac dca eac3 libgsm libmp3lame libspeex mp2 nellymoser pcm_alaw pcm_f32be "
        "pcm_f32le pcm_f64be pcm_f64le pcm_mulaw pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32be "
        "pcm_s32le pcm_s8 pcm_u8"
    ),
    "mp2": "mp2",
    "mp3": "libmp3lame",
    "mp4": "aac ac3 alac dca eac3 flac libmp3lame libopus libvorbis mp2 truehd vorbis",
    "mpeg": "ac3 dca libmp3lame mp2 pcm_dvd pcm_s16be",
    "mpegts": "aac ac3 dca eac3 libmp3lame libopus mp2 s302m truehd",
    "nut": (
        "aac ac3 adpcm_ms adpcm_swf adpcm_yamaha dfpwm eac3 flac g723_1 "
        "libgsm_ms libmp3lame libopus libspeex libvorbis mp2 pcm_alaw pcm_f32be pcm_f32le pcm_f64be "
        "pcm_f64le pcm_mulaw pcm_s16be pcm_s16be_planar pcm_s16le pcm_s16le_planar pcm_s24be pcm_s24le "
        "pcm_s24le_planar pcm_s32be pcm_s32le pcm_s32le_planar pcm_s64be pcm_s64le pcm_s8 pcm_s8_planar "
        "pcm_u16be pcm_u16le pcm_u24be pcm_u24le pcm_u32be pcm_u32le pcm_u8 vorbis wavpack"
    ),
    "oga": "flac libopus libvorbis",
    "ogg": "flac libopus libspeex libvorbis vorbis",
    "opus": "libopus",
    "rm": "aac ac3 real_144",
    "sbc": "sbc",
    "smjpeg": "pcm_s16le",
    "sox": "pcm_s32le",
    "spdif": "ac3",
    "spx": "libspeex",
    "svcd": "mp2",
    "swf": "libmp3lame",
    "truehd": "truehd",
    "tta": "tta",
    "vob": "ac3 dca libmp3lame mp2 pcm_dvd",
    "voc": "pcm_alaw pcm_mulaw pcm_s16le pcm_u8",
    "w64": (
        "ac3 adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha dca dfpwm eac3 flac g722 g723_1 libgsm_ms "
        "libmp3lame mp2 pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le pcm_s32le pcm_s64le "
        "pcm_u8 wmav1 wmav2"
    ),
    "wav": (
        "ac3 adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha dfpwm eac3 flac g722 g723_1 g726 libgsm_ms "
        "libmp3lame mp2 pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le pcm_s32le pcm_s64le "
        "pcm_u8 wmav1 wmav2"
    ),
    "webm": "libopus libvorbis vorbis",
    "wsaud": "adpcm_ima_ws",
    "wtv": (
        "ac3 adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha dfpwm eac3 flac g723_1 libgsm_ms libmp3lame "
        "libspeex libvorbis mp2 pcm_alaw pcm_f32le pcm_f64le pcm_mulaw pcm_s16le pcm_s24le pcm_s32le "
        "pcm_s64le pcm_u8 vorbis wmav1 wmav2"
    ),
    "wv": "wavpack",
}
"""Container → its codecs, by FFmpeg's names. Those whose files are known by their ending alone are left out (gsm,
g723_1, aptx, dfpwm, g722, raw samples); so are big-endian samples in FLV, which FFmpeg hears as noise, second encoders
of a codec, comfort noise, which keeps no tone, and IMA ADPCM in NUT, which does not tell what newer FFmpegs want to
know of it."""
_NARROW = "g723_1 libgsm libgsm_ms nellymoser real_144 g726"
RATES = {**dict.fromkeys(_NARROW.split(), 8000), "g722": 16000, "libspeex": 16000, "adpcm_swf": 44100}
RATES |= {"flv": 44100, "swf": 44100, "mmf": 44100}  # of a codec, else of a container, else 48000 Hz
STEREO = {"s302m", "mlp", "truehd", "pcm_dvd", "vorbis"}
RULES = {
    "as if whole": {
        "tag before": "3g2 3gp f4v ipod mov mp4 wtv",
        "tags behind": "nut:g723_1 w64",
        "zeros behind": "au sox w64",
        "twice": "adx asf avi:flac flac flv matroska nut oga:libopus ogg:libopus opus rm swf voc webm wv",
    },
    "every second": {
        "whole": "asf:flac wtv:flac",
        "zeroed": "asf:flac avi flac w64:flac wav:flac wtv:flac",
        "flipped": "swf flv:libmp3lame asf:libvorbis asf:pcm_mulaw wtv:wmav1 wtv:wmav2",
        "noise in": "flv:libspeex mp3 nut:adpcm_swf nut:libgsm_ms rm w64:pcm_s64le",
        "bytes out": "adx flac ismv mp2 mpeg:ac3 nut:libgsm_ms nut:mp2 vob:ac3 w64:adpcm_ima_wav w64:adpcm_ms w64:flac "
        "w64:mp2 wav:adpcm_ima_wav wav:adpcm_ms wav:flac wav:mp2",
    },
    "pushed out": {"noise in": "adx aiff:adpcm_ima_qt aiff:adpcm_ima_ws caf:adpcm_ima_wav ismv w64 wav"},
    "newer FFmpeg": {"noise in": "w64:g723_1 wav:g723_1", "bytes out": "w64:g723_1 wav:g723_1"},
}
"""Where a run is right without hearing what `ffmpeg` hears: rule → damage → the containers, or pairs, it holds for.

as if whole: exactly the whole file is heard, twice where it is there twice. `ffmpeg` takes places of an MP4 and WTV
    from the beginning of a tag, refuses a W64 with anything behind it, hears the zeros behind an AU or SoX, and of
    joined files hears the first alone, or the second at the times of the first.
every second: the tones that are heard stand in the seconds where they were written, none is shorter than in either of
    `ffmpeg`'s hearings, and what is missing at the end is told. It hears nothing behind some damage (ASF, WTV,
    fragmented MP4), moves sound by time stamps that damage made (RealMedia, MP3, MP2, ADPCM), closes gaps in AVI, and
    does not place FLAC by the numbers of its frames.
pushed out: noise pushes sound behind the end that the header tells, where `ffmpeg` stops; a W64 it refuses. The header
    of a recording that was not closed tells as little, so all of it is heard.
newer FFmpeg: damaged frames are another sound to the FFmpeg in PyAV than to Debian's.
"""


UNCHECKED = re.compile("pcm|adpcm|g72|dfpwm|libgsm|nellymoser|real|libspeex|wma|sbc|.*(vorbis|mp3|mp2|opus)")
# where nothing tells how much there is to be, and every packet is whole (the pairs are cut between two packs)
PROMISELESS = "swf ircam nut spdif mpeg:libmp3lame vob:ac3 vob:libmp3lame"
