"""The sentences, as patterns to fill. One pattern says nothing that another of its kind does not.

Fields: n noun phrase, c clause, be "is" or "are" as the noun phrase asks; l a list of noun phrases; a, b, z the first,
second and last; rest all but the first. A pattern that begins with a field begins its sentence: the capital comes last.
"""

from __future__ import annotations

ONE = (
    "{c}.",
    "{n}.",
    "{n} can be heard.",
    "{n} {be} heard in the recording.",
    "the sound of {n}.",
    "a recording of {n}.",
    "an audio clip of {n}.",
    "there {be} {n} in this clip.",
    "you can hear {n}.",
    "this is the sound of {n}.",
    "the clip contains {n}.",
    "the audio features {n}.",
    "in this recording, {c}.",
    "{n} {be} audible.",
    "the microphone picks up {n}.",
    "we hear {n}.",
)
"""Of one sound."""

SEVERAL = (
    "{l} can be heard.",
    "{l} are heard in the recording.",
    "{l}.",
    "the sounds of {l}.",
    "a recording of {l}.",
    "you can hear {l}.",
    "the clip contains {l}.",
    "the audio features {l}.",
    "in this recording, {l} can be heard.",
    "{a} along with {rest}.",
    "{a} as well as {rest}.",
    "{l} are audible.",
    "among the sounds are {l}.",
    "the microphone picks up {l}.",
    "a mix of {l}.",
    "we hear {l}.",
)
"""Of several sounds whose times are not known."""

TOGETHER = (
    "{l} at the same time.",
    "{l} can be heard at the same time.",
    "{a} together with {rest}.",
    "{a} while {c_rest}.",
    "{c_a} while {c_rest}.",
    "{l} all at once.",
    "{l} are heard simultaneously.",
    "{a} over {rest}.",
    "{a} with {rest} at the same time.",
    "as {c_a}, {c_rest}.",
    "you can hear {l} together.",
    "{l} overlap.",
    "the overlapping sounds of {l}.",
    "a recording of {l} at once.",
)
"""Of sounds that are heard at one time."""

THEN = (
    "{a} followed by {b}.",
    "{a}, then {b}.",
    "first {a}, then {b}.",
    "{a} before {b}.",
    "{b} after {a}.",
    "{c_a}, and then {c_b}.",
    "at first {c_a}, and later {c_b}.",
    "it starts with {a} and ends with {b}.",
    "{a}, and after that {b}.",
    "the recording begins with {a}, followed by {b}.",
    "you hear {a} first and {b} second.",
    "{c_a} before {c_b}.",
    "after {a}, {c_b}.",
    "once {a} can no longer be heard, {c_b}.",
)
"""Of two phases, one after the other."""

IN_TURN = (
    "{a}, then {middle}, then {z}.",
    "first {a}, then {middle}, and finally {z}.",
    "{a} followed by {middle}, followed by {z}.",
    "it starts with {a}, goes on with {middle} and ends with {z}.",
    "{c_a}, then {c_middle}, and at last {c_z}.",
    "{a}, after that {middle}, and in the end {z}.",
    "the recording begins with {a}, continues with {middle} and closes with {z}.",
    "at first {c_a}, later {c_middle}, and finally {c_z}.",
    "you hear {a}, next {middle}, and last {z}.",
    "{a} to begin with, then {middle}, and {z} to end with.",
    "to begin with, {c_a}, then {c_middle}, and last {c_z}.",
    "a recording of {a}, then {middle}, and then {z}.",
)
"""Of three phases or more; middle: those between, joined by ", then "."""

THREE = (
    *IN_TURN,
    "one after the other: {a}, {middle}, {z}.",
    "{a} first, {middle} next, and {z} last.",
    "{a}, {middle} and {z}, in this order.",
)
"""Of three phases."""

FIRST = (
    "it starts with {a}; {l} can be heard later.",
    "first {a}, and later {l}.",
    "the recording begins with {a}, and {l} can be heard after that.",
    "{a} can be heard first, {l} later on.",
    "at first {c_a}; later there are the sounds of {l}.",
    "to begin with, {c_a}; {l} can be heard afterwards.",
    "you first hear {a} and later {l}.",
    "{c_a} in the beginning, with {l} later on.",
    "in the beginning there is the sound of {a}, and later that of {l}.",
    "{a} at the start and {l} in what follows.",
    "before anything else, {c_a}; later, {l} can be heard.",
    "the first sound is that of {a}; later you hear {l}.",
)
"""Of a beginning and what comes later, where there are too many phases to name."""

THROUGHOUT = (
    "{s}, with {l} throughout.",
    "{s}, with {l} all along.",
    "{s}, with {l} the whole time.",
    "{s}, with {l} from beginning to end.",
    "{s}. Throughout, {c_l}.",
    "{s}. All the while, {c_l}.",
    "{s}. From beginning to end, {c_l}.",
)
"""Of what sounds all the time, added to a sentence `s` about the rest."""

TIMES = (
    "{n} can be heard {times}.",
    "in all, {n} can be heard {times}.",
    "{n} {be} heard {times}.",
    "this clip has {n} {times}.",
)
"""A second sentence, of how often a sound is heard."""

SCENE = (
    "this was recorded {p}.",
    "a recording made {p}.",
    "the acoustic scene of {n}.",
    "the ambience of {n}.",
    "surrounding sounds {p}.",
    "the atmosphere of {n} is heard.",
    "sounds heard {p}.",
    "the microphone is {p}.",
    "the soundscape of {n}.",
    "a field recording {p}.",
    "typical sounds heard {p}.",
    "it sounds as if this was recorded {p}.",
    "ambient sound {p}.",
    "the everyday noise of {n}.",
)
"""Of a place: p where, n what."""

EMOTION = (
    "a person speaks {m}.",
    "a person is speaking {m}.",
    "{an_a} voice can be heard.",
    "the speaker sounds {a}.",
    "someone says something {m}.",
    "the voice of a person who sounds {a}.",
    "speech that expresses {f}.",
    "a sentence spoken {m}.",
    "the tone of the voice expresses {f}.",
    "someone talks {m}.",
    "{an_a} person is talking.",
    "a recording of {an_a} voice.",
    "in this clip, a person talks {m}.",
    "the sound of {an_a} speaker.",
)
"""Of how someone speaks: a adjective, an_a with its article, m manner, f feeling."""

MUSIC_BODIES = (
    "{an_all}track",
    "{an_adjectives}piece of {genres}music",
    "{an_all}recording",
    "an excerpt of {all}music",
    "{all}music",
)
MUSIC_FRAMES = ("{m}.", "this is {m}.", "we hear {m}.", "the clip contains {m}.", "{m} is playing.")
"""Of music: what it is called, and the sentence around that. all: adjectives and genres, an_…: behind an article."""

NOTE = (
    "{an}note from {l}{tail}.",
    "{an}sound from {l}{tail}.",
    "{l} making {an}sound{tail}.",
    "this is {an}note from {l}{tail}.",
    "this is {an}tone from {l}{tail}.",
    "we hear {an}note from {l}{tail}.",
    "the clip contains {an}note from {l}{tail}.",
    "the recording has {an}sound from {l}{tail}.",
    "{an}tone from {l}{tail}.",
    "you can hear {an}sound from {l}{tail}.",
    "{an}note from {l}{tail} can be heard.",
    "a recording of {an}note from {l}{tail}.",
)
"""Of a note with its qualities; an: an article and adjectives, tail: effects."""
