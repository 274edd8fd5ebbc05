"""What a compiled program sends between devices, read from its HLO text.

The volume is what one device sends with the algorithms that fit the bandwidth of a ring (Patarasuk
and Yuan 2009), n devices in a group:

    all-reduce           2 (n - 1) / n   of its result (reduce-scatter, then all-gather)
    all-gather             (n - 1) / n   of its result
    reduce-scatter         (n - 1)       of its result, 1 / n of what is reduced
    all-to-all             (n - 1) / n   of its result
    collective-permute     1             of its result, if the device is a source

A loop's body counts as often as the compiler knows that it runs. Where it does not know, such as
in the rasterizer, the body counts once and the collective is marked; a branch counts as taken.
XLA for TPUs cuts a collective into pieces that run inside other fusions; together they count once.
It writes a reduce-scatter as a fusion of that name, of an all-reduce and a slice of its result.

Letters: n devices in a group.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_SCATTERING = "all-reduce-scatter"
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*)?\{\s*$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_LISTED_GROUP = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}")
_IOTA_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)")
# Pieces of one collective have its channel, and a chain; the first holds all of its result.
_PIECE = re.compile(r'channel_id=(\d+).*chain_id="(\d+)"')
# Groups along named axes of a mesh, whose devices may be in another order than their numbers;
# 'a':(2)4 is the part of length 4 of the axis `a` behind one of length 2.
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\S+)\))? \{([^}]*)\}")
_IOTA = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?$")
_MESH_AXIS = re.compile(r"'(\w+)'=(\d+)")
_PART_OF_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")

Row = dict[str, str | int | float | bool]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction by which devices exchange data.

    Attributes:
      kind: one of `KINDS`.
      result_bytes: size of its result on one device.
      group: the devices of the first of its groups; (source, target) of a collective-permute.
      times: how often it runs in one call of the program.
      bounded: whether `times` is known; else it is a lower bound.
    """

    kind: str
    result_bytes: int
    group: tuple[int, ...]
    times: int
    bounded: bool

    @property
    def sent_bytes(self) -> float:
        """What a device sends in one call of the program; see the module's docstring."""
        n = len(self.group)
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1,
            "collective-permute": 1,
        }.get(self.kind, (n - 1) / n)
        return share * self.result_bytes * self.times

    def axes(self, mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
        """Axes of a mesh of devices in order along which the group extends."""
        places = [_coordinates(device, tuple(mesh_shape.values())) for device in self.group]
        return tuple(name for name, found in zip(mesh_shape, zip(*places)) if len(set(found)) > 1)


def collectives(hlo_text: str, num_devices: int) -> list[Collective]:
    """The collectives of a compiled program, of groups of at least two devices.

    Args:
      hlo_text: `jax.stages.Compiled.as_text()`.
      num_devices: of the program; the group of a collective that names none.

    Raises:
      ValueError: if the text is no module, or groups are written in a way that is not known.
    """
    computations, entry = _computations(hlo_text)
    found, seen = [], set()
    for name, times, bounded in _calls(computations, entry, 1, True):
        for line in computations[name]:
            if match := _COLLECTIVE.search(line):
                if piece := _PIECE.search(line):
                    if piece.groups() in seen:
                        continue
                    seen.add(piece.groups())
                kind, group = match[2], _group(line, num_devices)
                size = _result_bytes(match[1], kind, bool(match[3]), len(group))
                if kind == "all-reduce" and name.startswith(_SCATTERING):
                    kind, size = "reduce-scatter", size // len(group)
                if len(group) > 1 and size:
                    found.append(Collective(kind, size, group, times, bounded))
    return found


def table(found: Iterable[Collective], mesh_shape: Mapping[str, int]) -> list[Row]:
    """Sums by kind and axes, largest first: `kind`, `axes`, `count`, `sent_bytes`, `bounded`."""
    rows: dict[tuple[str, str], Row] = {}
    for each in found:
        axes = " x ".join(each.axes(mesh_shape))
        new = {"kind": each.kind, "axes": axes, "count": 0, "sent_bytes": 0.0, "bounded": True}
        row = rows.setdefault((each.kind, axes), new)
        row["count"] += each.times
        row["sent_bytes"] += each.sent_bytes
        row["bounded"] &= each.bounded
    return sorted(rows.values(), key=lambda row: -row["sent_bytes"])


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of every computation by its name, and the name of the entry."""
    found: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if not line.startswith(" ") and (match := _COMPUTATION.match(line)):
            lines = found.setdefault(match[1], [])
            entry = match[1] if line.startswith("ENTRY") else entry
        else:
            lines.append(line)
    if not entry:
        raise ValueError("expected the text of an HLO module with an ENTRY computation")
    return found, entry


def _calls(
    computations: Mapping[str, Sequence[str]], name: str, times: int, bounded: bool
) -> Iterator[tuple[str, int, bool]]:
    """Every computation that runs, once per place that calls it: name, times, bounded."""
    yield name, times, bounded
    for line in computations[name]:
        called = _CALLED.findall(line)
        for names in _BRANCHES.findall(line):
            called += [branch.strip().lstrip("%") for branch in names.split(",")]
        trips, known = 1, True
        if " while(" in line:
            match = _TRIPS.search(line)
            trips, known = (int(match[1]), True) if match else (1, False)
        for inner in called:
            if inner in computations:
                yield from _calls(computations, inner, times * trips, bounded and known)


def _group(line: str, num_devices: int) -> tuple[int, ...]:
    """The first group of devices of an instruction."""
    if match := _LISTED_GROUP.search(line):
        return tuple(int(device) for device in match[1].split(",") if device)
    if match := _IOTA_GROUPS.search(line):
        return tuple(_devices(match[2])[: int(match[1])])
    if match := _MESH_GROUPS.search(line):
        mesh = {name: int(length) for name, length in _MESH_AXIS.findall(match[1])}
        places = _along_axes(mesh, _PART_OF_AXIS.findall(match[3]))
        order = _devices(match[2]) if match[2] else range(num_devices)
        return tuple(order[place] for place in places)
    if re.search(r"replica_groups=(?!\{\})", line):
        raise ValueError(f"replica groups written in a way that is not known: {line.strip()[:500]}")
    return tuple(range(num_devices))


def _devices(text: str) -> list[int]:
    """Devices in the order of `0,2,1,3` or of `[2,4]T(1,0)`, an array of 0, 1, ... transposed."""
    if not (match := _IOTA.match(text)):
        return [int(device) for device in text.split(",")]
    shape = [int(length) for length in match[1].split(",")]
    order = [int(i) for i in match[2].split(",")] if match[2] else list(range(len(shape)))
    strides = [math.prod(shape[i + 1 :]) for i in order]
    turned = [shape[i] for i in order]
    return [
        sum(stride * place for stride, place in zip(strides, _coordinates(i, turned)))
        for i in range(math.prod(shape))
    ]


def _along_axes(mesh: Mapping[str, int], parts: Sequence[tuple[str, str, str]]) -> list[int]:
    """Place 0 and those that differ from it along some axes, or parts of axes, of a mesh."""
    places, lengths = [0], list(mesh.values())
    for name, before, length in parts:
        stride = math.prod(lengths[list(mesh).index(name) + 1 :])
        if length:
            stride *= mesh[name] // (int(before) * int(length))
        count = int(length or mesh[name])
        places = [place + stride * i for place in places for i in range(count)]
    return places


def _coordinates(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major coordinates of an index in an array of this shape."""
    found = []
    for length in reversed(shape):
        index, place = divmod(index, length)
        found.append(place)
    return tuple(reversed(found))


def _result_bytes(shapes: str, kind: str, starts: bool, group_size: int) -> int:
    """Size of the result, of an asynchronous start without the operands listed beside it."""
    sizes = [
        math.prod(int(length) for length in lengths.split(",") if length) * _bits(dtype) // 8
        for dtype, lengths in _SHAPE.findall(shapes)
    ]
    if not starts or kind == "all-reduce":  # whose start lists the result alone
        return sum(sizes)
    if kind == "collective-permute":
        return sizes[1]  # operand, result and sometimes two words of context
    # Of operands and results, which differ in size as shares and the whole do.
    shares = {"all-gather": (1, group_size), "reduce-scatter": (group_size, 1)}
    operands, results = shares.get(kind, (1, 1))
    return sum(sizes) * results // (operands + results)


def _bits(dtype: str) -> int:
    return 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
