#!/usr/bin/env python3
"""Makes the data the measurements in this directory work on: the same bytes for the same seed and scale.

`mixed`: small source-like files, a dump like `pg_dump --format=plain`, incompressible media; about 1 GB.
`million`: 1,000,000 files of 0 to 64 bytes in 1,000 directories and one directory with 200,000 more.

A set lies in DIR/lifeboat-bench-KIND-SEED-SCALE/data. Beside it stands `complete.json`, written last:
a set with it is used again, one without it is made anew.
"""
import argparse
import itertools
import json
import math
import os
import random
import shutil
import sys

VERSION = 1  # part of complete.json: to be raised when a change here changes the data
MB = 1_000_000
EPOCH_NS = 1_700_000_000 * 10**9

SOURCE_BYTES, SOURCE_FILES = 400 * MB, 35_000
DUMP_BYTES = 330 * MB
MEDIA_BYTES, MEDIA_FILES = 300 * MB, 60
MILLION_DIRS, MILLION_PER_DIR, MILLION_FLAT = 1_000, 1_000, 200_000

WORDS = """account action active address alias amount archive array async attach auth backup balance batch begin
bind block body bound branch bucket buffer build bytes cache call cancel channel check child chunk class clean client
clock close code collect column commit compare config connect consumer content context copy count create current cursor
data date debug decode default delete depth device digest dirty disk dispatch done drain drop emit empty encode end
entry error event expect export extend factory fail fetch field file filter final find first flag flush format frame
free group guard handle hash header hidden host index info init inner input insert item iter join journal kernel key
label last layer layout leaf length level limit line link list local lock log lookup loop main manager map mark mask
match merge message meta method mode module monitor mount mutex name next node note number object offset open option
order origin output owner page parent parse part path peer pending pool port prefix prepare process proxy query queue
random range read record region register release remote render repeat reply report request reset resolve result retry
root route row run sample scan schema scope search segment select sender server session shard shift signal size slot
socket sort source split stack stage start state status step storage stream string submit suffix sync table tail
target task template thread timeout timer token total trace track transfer tree trigger type unit update upper usage
user valid value vector version view visit volume wait watch weight width window worker wrap write zone""".split()

C_LINES = """{i}if ({l} == NULL || {l}->{g} < {n}) {{
{i}}} else if ({g}({l}, {g}->{l}) != {n}) {{
{i}for (size_t {s} = 0; {s} < {l}->{g}; {s}++) {{
{i}return {g}({l}, {l}->{g});
{i}return {n};
{i}}}
{i}}}
{i}break;

}}
static int {g}_{l}(struct {g} *{l}, const char *{g}, size_t {l})
{{
{i}struct {g} *{l} = {g}({l});
{i}{l}->{g} = {l}.{g}[{s}] + {n};
{i}{g}({l}, &{l}->{g}, sizeof(*{l}));
{i}memcpy({l} + {n}, {g}->{l}, {l}_{g});
{i}/* {w} the {w} of {l} {w} {w} is {w} before {w} {w} */
{i}case {G}_{L}:
{i}{g}_log({G}, "{w} {w} %%d: {w} {l}\\n", {l}->{g});
{i}uint64_t {l} = ({g} << {n}) | {l}_{g};
#define {G}_{L} 0x{n}
#include "{g}/{l}.h"
{i}const struct {g}_{w} *{l}_{w} = &{l}->{g}[{n}];
{i}goto {g};""".split("\n")

PY_LINES = """{i}if {l} is None or {l}.{g} < {n}:
{i}for {l} in self.{g}.{l}({n}):
{i}return self.{g}({l}, {l}.{g})
{i}return {l}

    def {l}_{g}(self, {g}, {l}={n}):
{i}\"\"\"{w} the {w} of {l} and {w} {w} when {w}.\"\"\"
{i}self.{l} = {g}({l}, {w}={l})
{i}{l}["{w}_{g}"] = {l}.{g}.get("{w}", {n})
{i}raise {G}Error(f"{w} {w} {{{l}}} {w} {{{g}}}")
class {G}{L}({g}.{w}):
from {g}.{w} import {l}, {g}_{w}
{i}# {w} {w} {l} {w} the {w} {w}, {w} {w}
{i}with self.{g}_{w}({l}, {n}) as {l}:
{i}assert {l}.{g} == {n}, "{w} {w}"
{i}{l}.{g}.append(({l}, {w}, {g}))
{i}except ({g}.{w}Error, KeyError) as {l}:
{i}logger.{w}("{w} {w} %%d", {l})
{i}{l}, {w} = {g}({l}[{n}:], self.{g})
{i}try:
{i}else:

{i}yield {g}({l}), {w}""".split("\n")

LICENCES = [
    "Copyright (c) {} The {} Authors. All rights reserved.\n"
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated\n"
    "documentation files, to deal in the software without restriction, including without limitation the rights\n"
    "to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the software.",
    "Copyright {} {} contributors\n"
    "Licensed under the licence in the file LICENSE (the \"License\"); you may not use this file except in\n"
    "compliance with it. Unless required by applicable law or agreed to in writing, software is distributed on an\n"
    "\"AS IS\" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.\n"
    "See the License for the specific language governing permissions and limitations.",
]


def rng_for(seed, part):
    return random.Random(f"lifeboat/{VERSION}/{seed}/{part}")


def zipf(count, exponent=1.0):
    """Cumulative weights for random.choices."""
    return list(itertools.accumulate((rank + 3) ** -exponent for rank in range(count)))


def write_file(path, data, rng):
    """Writes a file with a modification time of its own, down to the nanosecond."""
    with open(path, "wb", buffering=0) as out:
        out.write(data)
        stamp = EPOCH_NS + rng.getrandbits(54)
        os.utime(out.fileno(), ns=(stamp, stamp))


class Vocabulary:
    def __init__(self, rng, count=12_000):
        names = {}
        while len(names) < count:
            parts = rng.choices(WORDS, k=rng.choice((1, 2, 2, 2, 3)))
            camel = rng.random() < 0.3
            names["".join([parts[0]] + [p.title() for p in parts[1:]]) if camel else "_".join(parts)] = None
        self.names, self.weights = list(names), zipf(count, 0.8)
        rng.shuffle(self.names)

    def pick(self, rng, count):
        return rng.choices(self.names, cum_weights=self.weights, k=count)


def line_pool(patterns, vocabulary, rng, count=40_000):
    """Lines with everything filled in but the names that are each file's own (%s); and how many of these."""
    pool = []
    for _ in range(count):
        text, names = rng.choice(patterns), vocabulary.pick(rng, 4)
        for slot, value in (
            ("{i}", "    " * rng.choice((1, 1, 1, 2, 2, 3, 4))),
            ("{s}", rng.choice("ijkn")),
            ("{n}", rng.choice(("0", "1", "2", "8", "16", str(rng.randrange(4096))))),
            ("{l}", "%s"),
            ("{g}", names[0]),
            ("{G}", names[1].title().replace("_", "")),
            ("{L}", names[2].upper()),
        ):
            text = text.replace(slot, value)
        while "{w}" in text:
            text = text.replace("{w}", rng.choice(WORDS), 1)
        text = text.replace("{{", "{").replace("}}", "}") + "\n"
        pool.append((text, text.count("%s")))
    return pool


def source_text(rng, size, pool, weights, vocabulary, comment):
    """One source file of about `size` bytes: a licence now and then, then lines of the pool with its own names."""
    lines = []
    if rng.random() < 0.6:
        licence = rng.choice(LICENCES).format(rng.randrange(2008, 2025), rng.choice(WORDS).title())
        lines = [f"{comment} {line}\n" for line in licence.split("\n")] + ["\n"]
    slots, have = 0, sum(map(len, lines))
    while have < size:
        for text, count in rng.choices(pool, cum_weights=weights, k=max(1, (size - have) // 60)):
            lines.append(text)
            slots += count
            have += len(text) + 10 * count
    own = vocabulary.pick(rng, 12 + len(lines) // 8)
    return ("".join(lines) % tuple(rng.choices(own, cum_weights=zipf(len(own), 0.7), k=slots))).encode()


def source_dirs(rng, count):
    """Yields directories 3 to 8 deep, with room for 5 to 40 files each, `count` files in all."""
    dirs, taken = [((), 0)], {()}
    while count > 0:
        parent, depth = rng.choice(dirs)
        path = (*parent, rng.choice(WORDS) + rng.choice(("", "", "s", "_" + rng.choice(WORDS))))
        if depth == 8 or path in taken:
            continue
        taken.add(path)
        dirs.append((path, depth + 1))
        files = min(count, rng.randint(5, 40)) if depth + 1 >= 3 else 0
        count -= files
        yield "/".join(path), files


def make_sources(root, seed, scale):
    rng = rng_for(seed, "sources")
    vocabulary = Vocabulary(rng)
    kinds = [
        (line_pool(C_LINES, vocabulary, rng), "//", (".c", ".h", ".cc")),
        (line_pool(PY_LINES, vocabulary, rng), "#", (".py", ".py", ".pyi")),
    ]
    weights, count = zipf(40_000, 0.5), max(10, round(SOURCE_FILES * scale))
    sizes = [min(400_000, rng.lognormvariate(math.log(6_500), 1.05)) for _ in range(count)]
    factor = SOURCE_BYTES * scale / sum(sizes)
    sizes = iter([max(40, int(size * factor)) for size in sizes])
    for directory, files in source_dirs(rng, count):
        os.makedirs(os.path.join(root, directory), exist_ok=True)
        pool, comment, suffixes = kinds[rng.random() < 0.4]
        for number, name in enumerate(vocabulary.pick(rng, files)):
            path = os.path.join(root, directory, f"{name}{number}{rng.choice(suffixes)}")
            write_file(path, source_text(rng, next(sizes), pool, weights, vocabulary, comment), rng)


def dump_rows(rng, table, first, count):
    """`count` COPY rows. The random parts are drawn from pools, as values repeat in a real database."""
    pick, bits = rng.choices, rng.getrandbits
    one, two, three = (pick(WORDS, cum_weights=zipf(len(WORDS)), k=count) for _ in range(3))
    cities = pick(("Berlin", "Lyon", "Porto", "Gdańsk", "Malmö", "Turin", "Ghent", "Brno"), k=count)
    states = pick(("active", "pending", "closed", "failed"), weights=(70, 20, 8, 2), k=count)
    clock = 1_600_000_000 + first * 7
    for at in range(count):
        key, w, v, u = first + at, one[at], two[at], three[at]
        clock += bits(4)
        day, hour = f"2023-{clock // 2_419_200 % 12 + 1:02}-{clock // 86_400 % 28 + 1:02}", clock // 3600 % 24
        stamp = f"{day} {hour:02}:{clock // 60 % 60:02}:{clock % 60:02}.{bits(19):06}+00"
        if table == "users":
            yield (f"{key}\t{w}.{v}{key % 97}@{u}.example.org\t{w.title()} {v.title()}\t{stamp}\t{bits(128):032x}\t"
                   f"{states[at]}\t{{\"city\": \"{cities[at]}\", \"language\": \"en\", \"theme\": \"dark\", "
                   f"\"newsletter\": {'true' if key % 3 else 'false'}}}\t\\N\n")
        elif table == "orders":
            yield (f"{key}\t{bits(17)}\t{stamp}\t{stamp}\t{states[at]}\t{bits(13)}.{key % 100:02}\tEUR\t"
                   f"{w} {v}, {u} for {cities[at]}\t{{\"items\": [{{\"sku\": \"{w[:3].upper()}-{bits(12)}\", "
                   f"\"quantity\": {1 + bits(2)}}}], \"coupon\": null, \"gift\": false}}\t\\N\tt\n")
        else:
            yield (f"{key}\t{bits(17)}\t{stamp}\t{w}.{v}\t10.{bits(2)}.{bits(6)}.{bits(8)}\t"
                   f"Mozilla/5.0 (X11; Linux x86_64; rv:{100 + bits(4)}.0) Gecko/20100101 Firefox/{100 + bits(4)}.0\t"
                   f"{{\"path\": \"/{w}/{v}/{bits(12)}\", \"status\": {200 if key % 9 else 404}, "
                   f"\"milliseconds\": {bits(8)}}}\n")


def make_dump(root, seed, scale):
    rng, total = rng_for(seed, "dump"), 0
    with open(os.path.join(root, "database.sql"), "wb") as out:
        for table, share in (("users", 0.2), ("orders", 0.6), ("events", 1.0)):
            out.write(f"--\n-- Data for Name: {table}; Type: TABLE DATA; Schema: public; Owner: app\n--\n\n"
                      f"COPY public.{table} FROM stdin;\n".encode())
            first = 1
            while total < DUMP_BYTES * scale * share:
                block = "".join(dump_rows(rng, table, first, 2_000)).encode()
                out.write(block)
                first, total = first + 2_000, total + len(block)
            out.write(b"\\.\n\n\n")


def make_media(root, seed, scale):
    rng, count = rng_for(seed, "media"), max(1, round(MEDIA_FILES * scale))
    sizes = [rng.lognormvariate(0, 0.8) for _ in range(count)]
    sizes = [min(20 * MB, max(MB, size * MEDIA_BYTES * scale / sum(sizes))) for size in sizes]
    for number, size in enumerate(sizes):
        write_file(os.path.join(root, f"clip-{number:03}.mp4"), rng.randbytes(int(size)), rng)


def make_mixed(root, seed, scale):
    for name, make in (("sources", make_sources), ("database", make_dump), ("media", make_media)):
        print(f"making {name} ...", file=sys.stderr, flush=True)
        os.mkdir(os.path.join(root, name))
        make(os.path.join(root, name), seed, scale)


def make_million(root, seed, scale):
    print("making a million small files ...", file=sys.stderr, flush=True)
    rng = rng_for(seed, "million")
    pool = rng.randbytes(65_536)
    plan = [(f"many/{d:04}", round(MILLION_PER_DIR * scale)) for d in range(MILLION_DIRS)]
    for directory, count in [*plan, ("flat", round(MILLION_FLAT * scale))]:
        os.makedirs(os.path.join(root, directory))
        for number in range(count):
            at, size = rng.getrandbits(15), rng.randrange(65)
            write_file(os.path.join(root, directory, f"record-{number:06}.json"), pool[at:at + size], rng)


def figures(root):
    """Per part (and in all) the number of files and their bytes."""
    parts = {}
    for part in sorted(os.listdir(root)):
        walk = os.walk(os.path.join(root, part))
        sizes = [os.lstat(os.path.join(directory, name)).st_size for directory, _, names in walk for name in names]
        parts[part] = {"files": len(sizes), "bytes": sum(sizes)}
    return parts | {"all": {key: sum(part[key] for part in parts.values()) for key in ("files", "bytes")}}


def ensure_room(directory, kind, scale):
    """Fails before the work begins where the file system is too small (the archives and restored trees included)."""
    room = os.statvfs(directory)
    files, size = (1_250_000, 6_000 * MB) if kind == "million" else (80_000, 4_000 * MB)
    if room.f_bavail * room.f_frsize < size * scale:
        sys.exit(f"not enough space in {directory}: {size * scale / MB:.0f} MB are needed")
    if room.f_files and room.f_favail < files * scale:
        sys.exit(f"not enough inodes in {directory}: {files * scale:.0f} are needed")


def ensure(kind, directory, seed, scale):
    """Returns the set's root and figures; makes the set if it is not there."""
    home = os.path.join(directory, f"lifeboat-bench-{kind}-{seed}-{scale:g}")
    root, marker = os.path.join(home, "data"), os.path.join(home, "complete.json")
    if os.path.exists(marker):
        with open(marker, encoding="utf-8") as text:
            found = json.load(text)
        if found["version"] == VERSION:
            return found
    shutil.rmtree(home, ignore_errors=True)
    ensure_room(directory, kind, scale)
    os.makedirs(root)
    {"mixed": make_mixed, "million": make_million}[kind](root, seed, scale)
    made = {"version": VERSION, "seed": seed, "scale": scale, "root": root, "parts": figures(root)}
    with open(marker, "w", encoding="utf-8") as text:
        json.dump(made, text)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("mixed", "million"))
    parser.add_argument("dir")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    print(json.dumps(ensure(args.kind, os.path.realpath(args.dir), args.seed, args.scale)))


if __name__ == "__main__":
    main()
