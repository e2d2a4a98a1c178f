"""Every kind of checkpoint that is hostile or broken, with the answer to it."""

import json
import pickle
from typing import Final

from tests.models.hostile import (
    CONFIG,
    ENTRY,
    ESCAPE,
    WHOLE,
    Hostile,
    RunsCommand,
    bomb,
    configured,
    cut_header,
    folder_beside_an_index,
    folder_for_weights,
    header,
    index,
    linked,
    listening,
    many_headers,
    many_shards,
    many_tensors,
    pickled,
    piped,
    shape,
    shards,
    sparse_config,
    sparse_header,
    surrogate_name,
    unending_comment,
    unpickled,
)

DEEP_KEY: Final = b"\x80\x02}N" + b"\x85" * 2_000_000 + b"K\x01s."
"""A key that is a tuple of two million in each other."""

WIDE_KEY: Final = b"\x80\x02})" + b"q\x00h\x00\x86" * 200 + b"K\x01s."
"""A tuple of twice the same tuple of twice the same: its hash would take 2**200 steps."""

NESTED: Final = "[" * 100_000 + "]" * 100_000
WITH_BRACKETS: Final = f'{{"{"]" * 100_000}": {NESTED}}}'
"""Brackets in a name do not close the others."""

LIGHT: Final = (
    # files that are none
    Hostile(
        "pipe for weights",
        piped("model.safetensors"),
        r"model.safetensors is a named pipe in the place of a file",
        on="posix",
    ),
    Hostile("pipe for config", piped("config.json"), r"config.json is a named pipe in the place of a file", on="posix"),
    Hostile("socket for weights", listening, "is a socket in the place of a file", on="posix"),
    Hostile(
        "device for weights", linked("model.safetensors", "/dev/zero"), "is a device in the place of a file", on="posix"
    ),
    Hostile("device for config", linked("config.json", "/dev/zero"), "is a device in the place of a file", on="posix"),
    Hostile("folder for weights", folder_for_weights, "is a folder in the place of a file"),
    Hostile("folder beside an index", folder_beside_an_index, "", accepted=True),
    Hostile(
        "loop of links", linked("model.safetensors", "model.safetensors"), "cannot be read .*symbolic links", on="posix"
    ),
    Hostile("loop for config", linked("config.json", "config.json"), "found: config.json is not there", on="posix"),
    Hostile("link to nowhere", linked("model.safetensors", "../blobs/0"), "cannot be read .*No such file", on="posix"),
    Hostile("name that is no text", surrogate_name, "", accepted=True, on="linux"),
    # headers of safetensors files
    Hostile("header of 100 MB", sparse_header(100_000_000), "the header of .* has more than 20,000,000 bytes"),
    Hostile("header of NULs", sparse_header(10_000_000), "its header is damaged"),
    Hostile("longer than any header", sparse_header(2**40), "does not start with a safetensors header"),
    Hostile("longer than the file", cut_header, "it ends inside its header of 90000000 bytes"),
    Hostile("nested header", lambda folder: header(folder, NESTED), "more than 64 objects and arrays in each other"),
    Hostile("nested metadata", lambda folder: header(folder, f'{{"__metadata__": {NESTED}}}'), "more than 64 objects"),
    Hostile("brackets in names", lambda folder: header(folder, WITH_BRACKETS), "more than 64 objects"),
    Hostile("unclosed header", lambda folder: header(folder, "[" * 100_000), "more than 64 objects"),
    Hostile(
        "dimensions of 4,000 digits", shape(f"[{','.join(['9' * 4000] * 500)}]"), "a number of more than 100 digits"
    ),
    Hostile("5,000 dimensions", shape(f"[{','.join(['1'] * 5000)}]"), "a has 5,000 dimensions, and a tensor up to 64"),
    Hostile("negative shape", shape("[-2]"), "a has a dimension of -2"),
    Hostile("two negatives", shape("[-1, -2]"), "a has a dimension of -1"),
    Hostile("true shape", shape("[true, 2]"), "a has a dimension of True"),
    Hostile("float shape", shape("[2.0]"), r"a has a dimension of 2\.0"),
    Hostile("NaN shape", shape("[NaN]"), "a has a dimension of nan"),
    Hostile("infinite shape", shape("[1e999]"), "a has a dimension of inf"),
    Hostile("text shape", shape('["2"]'), "a has a dimension of '2'"),
    Hostile("null shape", shape("[null]"), "a has a dimension of None"),
    Hostile("nested shape", shape("[[2]]"), r"a has a dimension of \[2\]"),
    Hostile("text for a shape", shape('""'), "a cannot have the shape"),
    Hostile("no shape", shape("null"), "an entry is not an object of dtype, shape and data_offsets"),
    Hostile("overflowing shape", shape("[4294967296, 4294967296]"), "a would have more than 9223372036854775807 bytes"),
    Hostile(
        "huge dimension of nothing", shape("[0, 18446744073709551615]"), "a has a dimension of 18446744073709551615"
    ),
    Hostile("repeated tensor", lambda folder: header(folder, f'{{"a": {ENTRY}, "a": {ENTRY}}}'), "a is there twice"),
    Hostile(
        "repeated shape",
        lambda folder: header(folder, '{"a": {"dtype": "F32", "shape": [9], "shape": [2], "data_offsets": [0, 8]}}'),
        "shape is there twice",
    ),
    Hostile("list of entries", lambda folder: header(folder, f"[{ENTRY}]"), "a JSON list instead of an object"),
    Hostile("list for an entry", lambda folder: header(folder, '{"a": [1]}'), "an entry is not an object"),
    Hostile(
        "float offsets",
        lambda folder: header(folder, '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [false, 8.0]}}'),
        r"a should take bytes 0 to 8, not \[False, 8\.0\]",
    ),
    Hostile(
        "NaN offsets",
        lambda folder: header(folder, f'{{"b": {ENTRY}, {WHOLE.replace("0, 8", "NaN, NaN")[1:]}'),
        "should take bytes",
    ),
    Hostile(
        "unhashable dtype",
        lambda folder: header(folder, '{"a": {"dtype": {}, "shape": [2], "data_offsets": [0, 8]}}'),
        "an entry is not an object",
    ),
    Hostile(
        "unknown dtype",
        lambda folder: header(folder, json.dumps({"a": {"dtype": ESCAPE, "shape": [2], "data_offsets": [0, 8]}})),
        r"a has a dtype that is not known, '\\x1b",
    ),
    Hostile("metadata of numbers", lambda folder: header(folder, '{"__metadata__": {"a": 1}}', data=0), "is not text"),
    Hostile(
        "metadata of nothing", lambda folder: header(folder, '{"__metadata__": 7}', data=0), "its header is damaged"
    ),
    Hostile("header in UTF-16", lambda folder: header(folder, "{}".encode("utf-16")), "its header is damaged"),
    Hostile(
        "half a surrogate", lambda folder: header(folder, WHOLE.replace("a", r"\ud800", 1)), "half a surrogate pair"
    ),
    Hostile("bare surrogate", lambda folder: header(folder, WHOLE.replace("a", "\ud800", 1)), "its header is damaged"),
    Hostile(
        "escapes for a name", lambda folder: header(folder, f"{{{json.dumps(ESCAPE)}: {ENTRY}}}"), "", accepted=True
    ),
    Hostile(
        "escapes in a broken name",
        lambda folder: header(folder, f"{{{json.dumps(ESCAPE)}: {ENTRY.replace('8]', '9]')}}}"),
        r"\\x1b\]0;pwned\\x07\\x1b\[2J should take bytes",
    ),
    Hostile(
        "name of a megabyte", lambda folder: header(folder, '{"%s": 1}' % ("x" * 10**6)), "an entry is not an object"
    ),
    Hostile(
        "name of underscores",
        lambda folder: header(folder, WHOLE.replace("a", "_" * 10**6 + ".weight", 1).replace("[2]", "[1, 2]")),
        "",
        accepted=True,
    ),
    # the index
    Hostile("index of a list", lambda folder: index(folder, "[]"), "holds a JSON list instead of an object"),
    Hostile("nested index", lambda folder: index(folder, f'{{"weight_map": {NESTED}}}'), "more than 64 objects"),
    Hostile("numbers for files", shards(7), "has 7 in the place of the name of a file, for b0"),
    Hostile("lists for files", shards(["x"]), r"has \['x'\] in the place of the name of a file"),
    Hostile(
        "parent folder",
        shards("../../etc/passwd"),
        r"found: the index names ../../etc/passwd, which is no file of this folder",
    ),
    Hostile("hidden parent folder", shards("a/../../b"), "which is no file of this folder, and was not opened"),
    Hostile("absolute name", shards("/etc/passwd"), "which is no file of this folder, and was not opened"),
    Hostile("name of Windows", shards("..\\x", "C:x"), "which is no file of this folder, and was not opened"),
    Hostile("folder itself", shards("", ".", "./"), "which is no file of this folder, and was not opened"),
    Hostile("escapes for a file", shards(ESCAPE), r"the index names \\x1b\]0;pwned\\x07\\x1b\[2J, which is no file"),
    Hostile("escapes of one byte", shards("\x7f\x9b2J"), r"the index names \\x7f\\x9b2J, which is no file"),
    Hostile("forged line", shards("x\n::error::y"), r"the index names x\\n::error::y, which is no file"),
    Hostile("NUL in a file name", shards("x\0y"), r"the index names x\\x00y, which is no file"),
    Hostile("reversed text", shards("x\u202ey"), r"the index names x\\u202ey, which is no file"),
    Hostile(
        "surrogate for a file",
        lambda folder: index(folder, '{"weight_map": {"a": "\\udc80"}}'),
        "half a surrogate pair",
    ),
    Hostile("long file name", shards("x" * 100_000), r"found: x{100}… is not there"),
    Hostile("pattern for a file name", shards("x.**"), r"found: x\.\*\* is not there"),
    Hostile(
        "missing by the thousand",
        shards(*(f"{number}.safetensors" for number in range(1999))),
        "1987 more that the index",
    ),
    Hostile("2,001 shards", shards(*map(str, range(2000))), "the names of 2,001 shards"),
    Hostile(
        "infinite total", shards(metadata={"total_size": float("inf")}), "says total_size inf, the shards hold 8 bytes"
    ),
    Hostile("total that is no number", shards(metadata={"total_size": float("nan")}), "says total_size nan"),
    Hostile("total of 10**99", shards(metadata={"total_size": 10**99}), "says total_size 1000"),
    Hostile("negative total", shards(metadata={"total_size": -8}), "says total_size -8"),
    Hostile("total in a list", shards(metadata=[1]), "", accepted=True),
    Hostile(
        "repeated tensor in the index",
        lambda folder: index(folder, '{"weight_map": {"a": "x", "a": "model-00001-of-00002.safetensors"}}'),
        "found: model.safetensors.index.json has a twice",
    ),
    # pickles
    Hostile("bomb", bomb, "its data.pkl is compressed"),
    Hostile("command", lambda folder: pickled(folder, pickle.dumps({"a": RunsCommand()})), r"it asks for \w+\.system"),
    Hostile(
        "command of protocol 2", lambda folder: pickled(folder, pickle.dumps({"a": RunsCommand()}, 2)), "it asks for"
    ),
    Hostile("deep key", unpickled(DEEP_KEY), "a key that is no name"),
    Hostile("wide key", unpickled(WIDE_KEY), "a key that is no name"),
    Hostile("deep value", unpickled(DEEP_KEY.replace(b"}N", b"}K\x01N").replace(b"K\x01s.", b"s.")), "", accepted=True),
    Hostile("deep list", unpickled(b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."), "it holds a list"),
    Hostile("memo of 2**32", unpickled(b"\x80\x02}r\xff\xff\xff\xff."), "", accepted=True),
    Hostile(
        "bytes of 2**62", unpickled(b"\x80\x04}\x8e" + (2**62).to_bytes(8, "little") + b"."), "its pickle is damaged"
    ),
    Hostile(
        "text of 2**63", unpickled(b"\x80\x04}\x8d" + (2**63).to_bytes(8, "little") + b"."), "its pickle is damaged"
    ),
    Hostile("no end", unpickled(b"\x80\x02}" + b"N" * 4_000_000), "a pickle of more than 3,000,000 operations"),
    Hostile(
        "function of a tuple", unpickled(b"\x80\x04}" + b"N" + b"\x85" * 10**5 + b"N\x93."), "a function without a name"
    ),
    Hostile("empty pickle", unpickled(b""), "its pickle is damaged"),
    Hostile("empty stack", unpickled(b"\x80\x02u."), "its pickle is damaged"),
    Hostile("directory nowhere", unending_comment, "it has no data.pkl"),
    # the config
    Hostile("sparse config", sparse_config, "config.json has more than 20,000,000 bytes"),
    Hostile("nested config", configured(f'{{"a": {NESTED}}}'), "more than 64 objects"),
    Hostile("list for a config", configured("[]"), "holds a JSON list instead of an object"),
    Hostile("config in UTF-16", configured(CONFIG.encode("utf-16")), "is not JSON"),
    Hostile(
        "architectures: 7",
        configured('{"architectures": 7}'),
        "found: in config.json 'architectures' is 7, and not a list",
    ),
    Hostile(
        "architectures: [7]", configured('{"architectures": [7]}'), r"'architectures' is \[7\], and not a list of names"
    ),
    Hostile("architectures: text", configured('{"architectures": "X"}'), "'architectures' is 'X', and not a list"),
    Hostile("architectures: object", configured('{"architectures": {"a": 1}}'), "and not a list of names of classes"),
    Hostile("model_type: list", configured('{"model_type": ["x"]}'), r"'model_type' is \['x'\], and not a name"),
    Hostile("auto_map: 7", configured('{"auto_map": 7}'), "'auto_map' is 7, and not an object"),
    Hostile(
        "dtype: list",
        configured('{"torch_dtype": [1], "tie_word_embeddings": 1, "vocab_size": [2]}'),
        "",
        accepted=True,
    ),
    Hostile("infinite config", configured('{"time_step_limit": [0.0, Infinity], "n": %s}' % 10**31), "", accepted=True),
    Hostile("escapes for an architecture", configured(json.dumps({"architectures": [ESCAPE]})), "", accepted=True),
    Hostile(
        "repeated key", configured('{"model_type": "a", "model_type": "b"}'), "found: config.json has model_type twice"
    ),
)
"""Each is a matter of milliseconds."""

HEAVY: Final = (
    Hostile("million tensors", many_tensors, "the header of .* has more than 20,000,000 bytes"),
    Hostile("headers of 100 shards", many_headers, "has headers of more than 30,000,000 bytes"),
    Hostile("500,000 shards", many_shards, "model.safetensors.index.json has more than"),
    Hostile(
        "400,000 names in a header",
        lambda folder: header(folder, "{" + ",".join(f'"{number}":0' for number in range(400_000)) + "}", data=0),
        "an entry is not an object",
    ),
    Hostile(
        "wide characters",
        lambda folder: header(folder, '{"__metadata__": {"a": "%s\U0001f600"}}' % ("x" * 19_000_000), data=0),
        "",
        accepted=True,
    ),
)
"""These take a second, or much memory, to make or to refuse."""
